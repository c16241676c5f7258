"""One chat per rollout against one chat per call, on a model's own weights: writing, and the update.

    OMP_NUM_THREADS=1 python -P benchmarks/conversation.py data/smollm2

Writing: 16 conversations of 300 tokens go on for four turns, each reading 24-56 tokens and writing 8, with the keys and
values kept between turns and without. Update: 4 conversations of 13 calls (36 tokens read, 8 written each), as one sequence
each and call by call, the same loss and gradient. Tokens are random. CPU-seconds of this process, the second of two tries.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from skill1.config import load_config
from skill1.generation.calls import Prompt
from skill1.generation.padded import PaddedWriter
from skill1.policy import load_tokenizer
from skill1.records import Row
from skill1.trainer import build_trainer

CHATS, SAID, TURNS, WRITTEN = 16, 300, 4, 8
ROLLOUTS, CALLS, READ = 4, 13, 36


def second(act: Callable[[], object]) -> float:
    """CPU-seconds of the second of two tries."""
    act()
    started = time.process_time()
    act()
    return time.process_time() - started


def write(model: PreTrainedModel, kept: bool) -> None:
    """Let all conversations go on; the first call reads what was said and is part of both."""
    rng = np.random.default_rng(0)
    vocabulary = model.config.vocab_size
    writer = PaddedWriter(model, batch=CHATS, cache_tokens=10**6, pad=0, ends=frozenset())
    said = [rng.integers(vocabulary, size=SAID).tolist() for _ in range(CHATS)]
    with torch.no_grad():
        for turn in range(TURNS):
            asked = [
                Prompt(
                    ids + rng.integers(vocabulary, size=rng.integers(24, 57)).tolist(),
                    (turn, i),
                    (i,) if kept else None,
                )
                for i, ids in enumerate(said)
            ]
            written = writer.write(asked, 1.0, WRITTEN)
            said = [[*prompt.ids, *ids.tolist()] for prompt, (ids, _) in zip(asked, written, strict=True)]


def conversations(vocabulary: int) -> list[Row]:
    """The rows of a step of conversations."""
    rng = np.random.default_rng(0)

    def ids(count: int) -> np.ndarray:
        return rng.integers(vocabulary, size=count).astype(np.int32)

    return [
        Row(
            ids(READ), ids(WRITTEN), np.zeros(WRITTEN, np.float32), "act", float(rng.normal()), 1.0, r // 2, r, t, t > 0
        )
        for r in range(ROLLOUTS)
        for t in range(CALLS)
    ]


def apart(rows: list[Row]) -> list[Row]:
    """The same calls, each with all that came before it as its prompt."""
    found: list[Row] = []
    said: list[np.ndarray] = []
    for row in rows:
        said = said if row.continues else []
        found.append(replace(row, prompt_ids=np.concatenate([*said, row.prompt_ids]), continues=False))
        said += [row.prompt_ids, row.completion_ids]
    return found


def update(model: str, rows: list[Row]) -> float:
    """CPU-seconds of the second of two updates."""
    overrides = {"policy.model": model, "train.steps": 2, "train.save_every": 9, "rollout.tasks_per_step": 2}
    config = load_config("mini", overrides=overrides | {"policy.adapter": None})
    marks = []

    def collect(step: int, policy: PreTrainedModel) -> tuple[list[Row], dict[str, float]]:
        marks.append(time.process_time())
        return rows, {"reward": 0.0}

    with tempfile.TemporaryDirectory() as folder:
        weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        trainer = build_trainer(config, weights, load_tokenizer(model), Path(folder), collect)
        trainer._save_checkpoint = lambda *given: None
        trainer.train()
    return time.process_time() - marks[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a causal LM")
    given = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.bfloat16).eval()
    kept, again = (second(partial(write, model, how)) for how in (True, False))
    print(f"writing, CPU-s: kept {kept:.1f}, read again {again:.1f}: {again / kept:.1f} times faster")
    rows = conversations(model.config.vocab_size)
    del model
    seconds = [update(given.model, part) for part in (rows, apart(rows))]
    tokens = [sum(row.length for row in part) for part in (rows, apart(rows))]
    for name, s, n in zip(("conversations", "call by call"), seconds, tokens, strict=True):
        print(f"update, {name}: {n:,} tokens in {s:.1f} CPU-s, {n / s:.0f} a second")
    print(f"update: {tokens[1] / tokens[0]:.1f} times fewer tokens, {seconds[1] / seconds[0]:.1f} times faster")


if __name__ == "__main__":
    main()
