"""Cost of the WebShop environment: steps, start, memory; and its ranking on a large generated catalogue.

Run on one thread: OMP_NUM_THREADS=1 python benchmarks/webshop.py [--data DIR] [--products 100000]
Without --data a catalogue of 1,000 products is generated. Baselines of the same run: a process for every episode, as
the original has it (here with our engine in it: one process's memory times their number), against one shop for all;
and a plain BM25 scorer that goes over every document's term counts, whose best hits are compared on the way. CPU
seconds (process time); memory is resident-set growth, each measurement in a process of its own; mapped pages in use
count.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import multiprocessing
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

MEGABYTE = 1_000_000


def resident() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / MEGABYTE


def start(data: str) -> Any:
    from skill1.envs.webshop.data import Files, load_catalogue
    from skill1.envs.webshop.engine import Shop

    return Shop(load_catalogue(Files.find(data)))


def choose(rng: random.Random, observation: Any) -> str:
    """A search for some of the goal's words, or a random click; buying one time in ten that it is possible."""
    words = observation.instruction.split()
    offered = [a for a in observation.admissible if a != "click[buy now]" or rng.random() < 0.1]
    if offered[0].startswith("search") or rng.random() < 0.1:
        return f"search[{' '.join(rng.sample(words, min(6, len(words))))}]"
    return rng.choice(offered)


def episodes(data: str, width: int, rounds: int) -> dict[str, float]:
    """Start a shop and play `width` episodes side by side."""
    before = resident()
    wall = time.perf_counter()
    from skill1.envs.webshop.environment import WebshopEnvironment

    imported = time.perf_counter()
    environment = WebshopEnvironment(start(data))
    started = time.perf_counter()
    memory_shop = resident() - before
    tasks = environment.tasks("train")
    rng = random.Random(0)
    began, steps, searches = time.process_time(), 0, 0
    for _ in range(rounds):
        now = environment.reset([rng.choice(tasks) for _ in range(width)])
        running = [True] * width
        while any(running):
            actions = [choose(rng, o) if r else None for o, r in zip(now, running, strict=True)]
            results = environment.step(actions)
            steps += sum(running)
            searches += sum(action is not None and action.startswith("search") for action in actions)
            now = [result.observation if result else o for result, o in zip(results, now, strict=True)]
            running = [r and not result.done for result, r in zip(results, running, strict=True)]
    return {
        "import_s": imported - wall,
        "start_s": started - imported,
        "step_ms": (time.process_time() - began) / steps * 1000,
        "searches": searches / steps,
        "shop_mb": memory_shop,
        "all_mb": resident() - before,
    }


def large(folder: str, products: int, queries: int) -> dict[str, float]:
    """Generate, build, and search a large catalogue kept on disk, beside the plain scorer."""
    from skill1.envs.webshop.data import Files, load_catalogue
    from skill1.envs.webshop.engine import Shop
    from skill1.envs.webshop.generate import generate
    from skill1.envs.webshop.text import analyze

    clock = time.process_time
    began = clock()
    generate(Path(folder), seed=0, products=products)
    generated = clock()
    files = Files.find(folder)
    before = resident()
    load_catalogue(files, in_memory=0)
    built = clock()
    peak = resource_peak() - before
    open_began = time.perf_counter()
    catalogue = load_catalogue(files, in_memory=0)
    opened = time.perf_counter() - open_began
    shop = Shop(catalogue)
    rng = random.Random(0)
    drawn = rng.sample(range(len(shop.goals)), queries)
    asked = [shop.goals[number].text.split(", and price lower")[0].lower() for number in drawn]
    times = []
    hits = []
    for query in asked:
        at = clock()
        hits.append(catalogue.index.search(query, 50))
        times.append(clock() - at)

    documents = [Counter(analyze(product.index_text)) for product in catalogue.products]
    lengths = [sum(document.values()) for document in documents]
    frequencies = Counter(term for document in documents for term in document)
    mean = sum(lengths) / len(lengths)
    plain = []
    same = 0
    for query, found in zip(asked[: max(1, queries // 20)], hits, strict=False):
        at = clock()
        terms = Counter(analyze(query))
        idf = {t: math.log(1 + (len(documents) - (n := frequencies[t]) + 0.5) / (n + 0.5)) for t in terms}
        scores = []
        for number, (document, length) in enumerate(zip(documents, lengths, strict=True)):
            norm = 0.9 * (0.6 + 0.4 * length / mean)
            shares = (c * idf[t] * document[t] / (document[t] + norm) for t, c in terms.items() if t in document)
            scores.append((sum(shares), number))
        best = sorted(scores, reverse=True)[:10]
        plain.append(clock() - at)
        # Lucene rounds lengths: compare the sums of the best ten, not their order
        same += math.isclose(sum(s for s, _ in best), sum(s for _, s in found[:10]), rel_tol=0.05)
    cache = next((Path(folder) / "cache").iterdir())
    return {
        "generate_s": generated - began,
        "build_s": built - generated,
        "build_peak_mb": peak,
        "open_s": opened,
        "file_mb": files.products.stat().st_size / MEGABYTE,
        "disk_mb": sum(path.stat().st_size for path in cache.iterdir()) / MEGABYTE,
        "index_mb": sum(values.nbytes for values in vars(catalogue.index).values()) / MEGABYTE,
        "query_ms": statistics.median(times) * 1000,
        "plain_query_ms": statistics.median(plain) * 1000,
        "plain_agrees": same / len(plain),
    }


def open_only(folder: str, queries: int) -> dict[str, float]:
    """Memory of a shop on the stored catalogue, before and after searches and looking at what they found."""
    from skill1.envs.webshop.data import Files, load_catalogue
    from skill1.envs.webshop.engine import Shop

    before = resident()
    shop = Shop(load_catalogue(Files.find(folder), in_memory=0))
    opened = resident() - before
    rng = random.Random(0)
    for number in rng.sample(range(len(shop.goals)), queries):
        for hit in shop.search(shop.goals[number].text.split(", and price lower")[0].lower())[:10]:
            _ = shop.products[hit].price_tag
    return {"open_mb": opened, "used_mb": resident() - before}


def resource_peak() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


def in_own_process(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of the original files [default: generated]")
    parser.add_argument("--products", type=int, default=100_000, help="of the large catalogue; 0 leaves it out")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--width", type=int, default=512, help="episodes side by side")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data
        if data is None:
            from skill1.envs.webshop.generate import generate

            data = f"{folder}/small"
            generate(Path(data))
        one = in_own_process(episodes, data, 1, 100)
        many = in_own_process(episodes, data, arguments.width, 1)
        print(f"import {one['import_s']:.2f} s, start {one['start_s']:.2f} s (wall)")
        searches = f"{one['searches']:.0%} searches"
        print(f"step {one['step_ms']:.2f} CPU ms alone, {many['step_ms']:.2f} side by side; {searches}")
        apart = one["all_mb"] * arguments.width
        print(
            f"memory: shop {one['shop_mb']:.0f} MB, with 1 episode {one['all_mb']:.0f} MB, with {arguments.width} "
            f"{many['all_mb']:.0f} MB; one process each {apart:.0f} MB ({apart / many['all_mb']:.0f}x)"
        )
        print(json.dumps({"one": one, "many": many}))
        if arguments.products:
            big = f"{folder}/large"
            result = in_own_process(large, big, arguments.products, arguments.queries)
            result |= in_own_process(open_only, big, arguments.queries)
            print(
                f"{arguments.products} products ({result['file_mb']:.0f} MB): generate {result['generate_s']:.1f}, "
                f"build {result['build_s']:.1f} CPU s with {result['build_peak_mb']:.0f} MB at most, open "
                f"{result['open_s']:.2f} s; on disk {result['disk_mb']:.0f} MB, index {result['index_mb']:.0f} MB"
            )
            print(
                f"memory: open {result['open_mb']:.0f} MB, after {arguments.queries} searches {result['used_mb']:.0f} "
                "MB (mapped pages included)"
            )
            print(
                f"query {result['query_ms']:.2f} CPU ms, plain scorer {result['plain_query_ms']:.0f} "
                f"({result['plain_query_ms'] / result['query_ms']:.0f}x), agreeing on {result['plain_agrees']:.0%}"
            )
            print(json.dumps({"large": result}))


if __name__ == "__main__":
    main()
