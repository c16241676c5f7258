"""Training with vLLM, the real one on CPUs: beside the run, and behind a server that is killed and started again.

Run by `make test-vllm` in an environment of its own (`make vllm`). Processes are forked before any has an engine.
"""

from __future__ import annotations

import http.server
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import vllm_cpu  # before vllm

pytest.importorskip("vllm", reason="vLLM is not installed here: make test-vllm")

from distributed_train import run, run_two, two_ranks
from nano_runs import configure, forked, make_nano
from vllm_serving import Server

import skill1.train
from skill1.config import Config
from skill1.evaluate import evaluate_run
from skill1.generation import vllm
from skill1.generation.vllm_server import ServerError
from skill1.play import load_policy
from skill1.policy import Policy
from skill1.store.run_directory import RunDirectory

TEXTS = ["put a mug in shelf", "look at the apple", "task : heat egg"]


@pytest.fixture(scope="module", autouse=True)
def engines() -> None:
    vllm_cpu.load()
    vllm_cpu.connect_trainer()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nano(tmp_path_factory.mktemp("policy"), width=64)


@pytest.fixture(scope="module")
def server(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    command = [str(Path(sys.executable).with_name("trl")), "vllm-serve", "--model", str(policy), "--dtype", "float32"]
    found = Server([*command, "--enforce_eager", "true"], vllm_cpu.vllm_home(folder / "home"), folder)
    found.start()
    yield found
    found.kill()


def settings(world: Path, policy: Path, **more: object) -> Config:
    """Three groups of three: two for one rank, one for the other; one validation task, of which the other has none."""
    given = {"rollout__tasks_per_step": 3, "train__steps": 2, "train__save_every": 1, "train__validation_tasks": 1}
    return configure(world, policy, **{**given, "policy__backend": "vllm", "train__learning_rate": 1e-3, **more})


def ratios(directory: Path) -> None:
    """What vLLM wrote is the policy's own, up to rounding in float32."""
    metrics = RunDirectory.open(directory).metrics()
    assert np.abs(metrics["importance_ratio/mean"] - 1).max() < 1e-4
    assert (np.abs(metrics["importance_ratio/max"] - 1) < 1e-3).all()
    assert metrics["grad_norm"].max() > 0


def test_two_ranks_with_unequal_numbers_of_prompts_play_what_one_plays(world, policy, tmp_path):
    config = settings(world, policy)
    assert run(config, tmp_path / "one") == 0
    assert run_two(config, tmp_path / "two") == 0
    one, two = (RunDirectory.open(tmp_path / name) for name in ("one", "two"))
    for step in (1, 2):  # the second with updated weights
        assert texts(one, step) == texts(two, step)
    assert texts(one, 1) != texts(one, 2)
    for directory in (one, two):
        ratios(directory.path)


def texts(run: RunDirectory, step: int) -> list[list[list[int]]]:
    return [[turn.completion_ids.tolist() for turn in rollout.turns] for rollout in run.read_rollouts(step)]


def test_an_adapter_is_trained_and_evaluated(world, policy, tmp_path):
    config = settings(world, policy, policy__lora_rank=4, evaluation__passes=1)
    assert run(config, tmp_path / "run") == 0
    ratios(tmp_path / "run")
    assert forked(lambda: evaluate_run(tmp_path / "run", splits=["valid_seen"], progress=False)) == 0
    assert len(RunDirectory.open(tmp_path / "run").evaluations("evaluation_step2")) == 6
    checkpoint = str(RunDirectory.open(tmp_path / "run").checkpoint(2).path)

    def ask(backend: str) -> None:
        asked = load_policy(replace(config, policy=replace(config.policy, backend=backend)), checkpoint)
        (tmp_path / backend).write_text(greedy(asked))

    for backend in ("transformers", "vllm"):
        assert forked(partial(ask, backend)) == 0
    assert (tmp_path / "vllm").read_text() == (tmp_path / "transformers").read_text()


def greedy(asked: Policy, count: int = len(TEXTS)) -> str:
    answers = asked.generate(TEXTS[:count], [(i,) for i in range(count)], temperature=0.0, max_new_tokens=8)
    return str([answer.ids.tolist() for answer in answers])


def served(world: Path, policy: Path, server: Server, **more: object) -> Config:
    return settings(world, policy, **({"policy__backend": "vllm_server", "policy__vllm_url": server.url} | more))


def test_a_server_started_again_between_steps_gets_the_weights(server, world, policy, tmp_path):
    """On two ranks; with the weights that it was started with the third step's ratios would not be 1."""

    def again_after_two() -> None:
        collect = skill1.train.Experience.collect

        def wrapped(self, step, model):
            if step == 2 and self._run is not None:
                server.kill()
                server.start()
            return collect(self, step, model)

        skill1.train.Experience.collect = wrapped

    assert run_two(served(world, policy, server, train__steps=3), tmp_path / "run", again_after_two) == 0
    ratios(tmp_path / "run")


def test_rollouts_beside_the_update_come_from_the_policy_before_it(server, world, policy, tmp_path):
    config = served(world, policy, server, train__steps=3, train__overlap=True, train__validate_every=2)
    assert run_two(config, tmp_path / "run") == 0
    metrics = RunDirectory.open(tmp_path / "run").metrics()
    assert metrics["rollouts/updates_behind"].tolist() == [0.0, 1.0, 1.0]
    apart = (metrics["importance_ratio/max"] - 1).abs().to_numpy()
    assert apart[0] < 1e-3 < apart[1:].min()
    assert np.abs(metrics["importance_ratio/mean"] - 1).max() < 0.1


def test_a_server_started_again_within_a_step_ends_the_run_which_resumes(server, world, policy, tmp_path, capfd):
    config = served(world, policy, server)

    def again_within_a_step() -> None:
        serve, calls = vllm.Engine.serve, []

        def wrapped(self, *asked):
            calls.append(asked)
            if (tmp_path / "run" / "rollouts" / "step_000001.parquet").exists() and len(calls) % 4 == 0:
                server.kill()
                server.start()
            return serve(self, *asked)

        vllm.Engine.serve = wrapped

    assert run(config, tmp_path / "run", sabotage=again_within_a_step) == 1
    told = f"ServerError: the vLLM server at {server.url} was started again within a rollout, and has not the policy's "
    assert told + "weights: continue with --resume" in capfd.readouterr().err
    assert run(config, tmp_path / "run", resume=True) == 0
    assert RunDirectory.open(tmp_path / "run").metrics()["step"].tolist() == [1, 2]
    ratios(tmp_path / "run")


def test_servers_that_a_run_cannot_use_are_named_at_its_start(server, world, policy, tmp_path):
    def refused(message: str, **fields: str) -> None:
        config = served(world, policy, server, **fields)
        with pytest.raises(ServerError, match=message):
            skill1.train.train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    other = make_nano(tmp_path / "other", width=32)
    refused(
        f"the vLLM server at {server.url} serves {policy}, but policy.model is {other}: start it with `trl vllm-serve "
        f"--model {other}`",
        policy__model=str(other),
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as taken:
        threading.Thread(target=taken.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{taken.server_port}"
        refused(f"what answers at {url} is no vLLM server .*on a port that is free", policy__vllm_url=url)
        taken.shutdown()
    refused(f"there is no vLLM server at {url} .*start it with `trl vllm-serve`", policy__vllm_url=url)


def test_more_ranks_than_prompts(server, world, policy, tmp_path):
    def ask(backend: str) -> None:
        asked, rank = load_policy(served(world, policy, server, policy__backend=backend)), int(os.environ["RANK"])
        for _ in range(2 - rank):  # the first rank asks twice
            (tmp_path / f"{backend}-{rank}").write_text(greedy(asked, 1 - rank))

    for backend in ("vllm", "vllm_server"):
        assert two_ranks(partial(ask, backend)) == 0
        assert (tmp_path / f"{backend}-1").read_text() == "[]"
    assert (tmp_path / "vllm-0").read_text() == (tmp_path / "vllm_server-0").read_text() != "[]"


def test_a_server_that_dies_ends_the_run_within_a_minute(server, world, policy, capfd):
    def ask() -> None:
        asked = load_policy(served(world, policy, server))
        server.kill()
        asked.generate(TEXTS, [(i,) for i in range(3)], temperature=1.0, max_new_tokens=4)

    assert forked(ask) == 1
    told = f"ServerError: the vLLM server at {server.url} is gone (.*start it again and continue with --resume"
    assert told.partition("(")[0] in capfd.readouterr().err
