"""Cost of the native engine beside the installed ALFWorld package, on the same games in one run.

Run on one thread: OMP_NUM_THREADS=1 python benchmarks/alfworld.py --data DIR
Both engines play the same commands on the same games; every observation, admissible list and win is compared on the
way. CPU seconds (process time), memory as growth of the process's resident set, each engine in a process of its own.
The package's episodes for the memory and 128-episode figures are fewer (--package-episodes) and scaled up linearly.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

sys.path.pop(0)  # this script's folder, in which its own name would stand for the alfworld package

from skill1.envs.alfworld.data import GameTree
from skill1.envs.alfworld.engine import RunningGame
from skill1.envs.alfworld.environment import EngineGame

Play = dict[str, list[Any]]


def commands_of(games: GameTree, ids: list[str], steps: int) -> list[list[str]]:
    """Random admissible commands for each game, chosen on the native engine and played by both."""
    rng = random.Random(0)
    plans = []
    for game in ids:
        episode = RunningGame(games.game(game))
        plan = []
        for _ in range(steps):
            plan.append(rng.choice(episode.admissible))
            episode.step(plan[-1])
        plans.append(plan)
    return plans


def starter(engine: str) -> Callable[[GameTree, str], EngineGame]:
    if engine == "native":
        return lambda games, game: RunningGame(games.game(game))
    from skill1.envs.alfworld.textworld import TextworldEngine

    return TextworldEngine().start


def measure(engine: str, data: str, ids: list[str], plans: list[list[str]], episodes: int) -> dict[str, Any]:
    """Play the plans one after another, then hold `episodes` of them at once and step each one once."""
    games, start = GameTree(data), starter(engine)
    resets, steps, seen = [], [], []
    for game, plan in zip(ids, plans, strict=True):
        began = time.process_time()
        if engine == "native":
            games.game(game)  # parsed once a game; the package does it at every start
            parsed = time.process_time()
        else:
            parsed = began
        episode = start(games, game)
        seen.append((episode.text, list(episode.admissible), episode.won))
        reset = time.process_time()
        resets.append((parsed - began, reset - parsed))
        for command in plan:
            text = episode.step(command)
            seen.append((text, list(episode.admissible), episode.won))
        steps.append((time.process_time() - reset) / len(plan))
        del episode

    gc.collect()
    process = psutil.Process()
    before, began = process.memory_info().rss, time.process_time()
    running = [start(games, ids[k % len(ids)]) for k in range(episodes)]
    started = time.process_time()
    for k, episode in enumerate(running):
        episode.step(plans[k % len(ids)][0])
        _ = episode.admissible, episode.won
    stepped = time.process_time()
    return {
        "parse": statistics.mean(parse for parse, _ in resets),
        "reset": statistics.mean(reset for _, reset in resets),
        "step": statistics.mean(steps),
        "start_all": (started - began) / episodes,
        "step_all": (stepped - started) / episodes,
        "memory": (process.memory_info().rss - before) / episodes,
        "seen": seen,
    }


def in_own_process(*arguments: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder as alfworld-download or skill1 generate leave it")
    parser.add_argument("--split", default="valid_seen")
    parser.add_argument("--games", type=int, default=6, help="games played, spread over the split")
    parser.add_argument("--steps", type=int, default=20, help="commands a game")
    parser.add_argument("--episodes", type=int, default=128, help="episodes held at once")
    parser.add_argument("--package-episodes", type=int, default=8, help="the package's share of them, scaled up")
    options = parser.parse_args()

    games = GameTree(options.data)
    every = [game.id for game in games.games(options.split)]
    count = min(options.games, len(every))
    ids = [every[k * len(every) // count] for k in range(count)]
    plans = commands_of(games, ids, options.steps)
    ours = in_own_process("native", options.data, ids, plans, options.episodes)
    package = in_own_process("textworld", options.data, ids, plans, min(options.package_episodes, options.episodes))
    differ = sum(a != b for a, b in zip(ours["seen"], package["seen"], strict=True))

    both = (ours, package)
    rows = [
        ("parse a game, CPU ms (package: part of reset)", ours["parse"] * 1e3, None),
        ("reset, CPU ms", ours["reset"] * 1e3, package["reset"] * 1e3),
        ("step, CPU ms", ours["step"] * 1e3, package["step"] * 1e3),
        (f"start {options.episodes} episodes, CPU s", *(e["start_all"] * options.episodes for e in both)),
        (f"step {options.episodes} episodes, CPU s", *(e["step_all"] * options.episodes for e in both)),
        (f"memory of {options.episodes} episodes, MB", *(e["memory"] * options.episodes / 1e6 for e in both)),
    ]
    print(f"{'':48}{'native':>12}{'package':>12}{'ratio':>10}")
    for name, native, other in rows:
        tail = f"{other:>12.3f}{other / native:>10.0f}" if other is not None and native > 0 else ""
        print(f"{name:<48}{native:>12.4f}{tail}")
    print(json.dumps({"games": count, "states": len(ours["seen"]), "differing_states": differ}))


if __name__ == "__main__":
    main()
