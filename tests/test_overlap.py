"""`train.overlap`: a step's rollouts are played beside the update before it, with a stand-in for vLLM's server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed_train import run, run_two
from nano_runs import configure

import skill1.generation.vllm
import skill1.generation.vllm_server
from skill1.checks import check_run
from skill1.config import Config, ConfigError
from skill1.generation.calls import Prompt, Written
from skill1.generation.padded import PaddedWriter
from skill1.store.run_directory import RunDirectory
from skill1.trainer import RowTrainer


class Server:
    """A server's one policy: what was last sent; it writes with the kit's own backend, seeds included."""

    writer: PaddedWriter
    updates = 0  # whose gradients are there
    updated = threading.Condition()

    def __init__(self, model: Any, tokenizer: Any, config: Any, ends: frozenset[int]) -> None:
        copy = type(model)(model.config).eval()  # without the trainer's hooks
        copy.load_state_dict(model.state_dict())
        Server.writer = PaddedWriter(copy, batch=64, cache_tokens=2**20, pad=tokenizer.pad_token_id, ends=ends)
        self._known = Server.updates

    def close(self) -> None: ...

    def write(self, prompts: Sequence[Prompt], temperature: float, max_new_tokens: int) -> list[Written]:
        """In a thread beside the trainer's nothing is written before the gradients of the update are there."""
        if threading.current_thread() is not threading.main_thread():
            with Server.updated:
                assert Server.updated.wait_for(lambda: Server.updates > self._known, timeout=60)
        return Server.writer.write(prompts, temperature, max_new_tokens)


def serve() -> None:
    skill1.generation.vllm.VLLMWriter = Server
    skill1.generation.vllm_server.check_vllm = skill1.generation.vllm_server.check_installed = lambda *given: None
    clip = RowTrainer._clip_grad_norm

    def clipped(self: RowTrainer, model: Any) -> Any:
        with Server.updated:
            Server.updates += 1
            Server.updated.notify_all()
        return clip(self, model)

    RowTrainer._clip_grad_norm = clipped


def config(world: Path, nano: Path, **changed: object) -> Config:
    """Rollouts of the household games that are easily won, so that there are skills and gradients."""
    given = {"policy__backend": "vllm_server", "train__overlap": True, "train__learning_rate": 0.01, "train__kl": 0.0,
             "train__steps": 3, "train__validate_every": 2, "train__rows_per_update": None, "train__save_every": 1}  # fmt: skip
    return configure(world, nano, **(given | changed))


@pytest.fixture(scope="module")
def steps(world, nano, tmp_path_factory) -> Callable[..., RunDirectory]:
    """Train in a process of its own, or two."""

    def trained(processes: int = 1, **changed: object) -> RunDirectory:
        path = tmp_path_factory.mktemp("runs") / "run"
        asked = config(world, nano, **changed)
        assert (run(asked, path, sabotage=serve) if processes == 1 else run_two(asked, path, serve)) == 0
        return RunDirectory.open(path)

    return trained


def texts(found: RunDirectory, step: int) -> list[list[list[int]]]:
    return [[turn.completion_ids.tolist() for turn in rollout.turns] for rollout in found.read_rollouts(step)]


def test_rollouts_are_written_by_the_policy_before_the_update_beside_them(steps):
    ahead, frozen, plain = steps(), steps(train__learning_rate=1e-30), steps(train__overlap=False)
    assert texts(ahead, 1) == texts(plain, 1) == texts(frozen, 1)
    # step 2 with what the library learnt from step 1, and the weights before its update
    assert texts(ahead, 2) == texts(frozen, 2) != texts(plain, 2)
    assert texts(ahead, 3) != texts(frozen, 3)
    assert [len(rollout.candidates) > 0 for rollout in ahead.read_rollouts(2)].count(True) > 0
    metrics, beside = ahead.metrics(), plain.metrics()
    assert metrics["rollouts/updates_behind"].tolist() == [0.0, 1.0, 1.0]
    assert (metrics["time/waited"] >= 0).all() and "time/waited" not in beside
    apart = (metrics["importance_ratio/max"] - 1).abs().to_numpy()
    assert apart[0] < 1e-3 < apart[1:].min(), "what is one update behind counts by its ratio"
    np.testing.assert_allclose(beside["importance_ratio/mean"], 1.0, atol=1e-4)


def test_two_processes_do_what_one_does(steps):
    one, two = steps(), steps(2)
    for step in (1, 2, 3):
        assert texts(one, step) == texts(two, step)
    assert one.metrics()["library/size"].tolist() == two.metrics()["library/size"].tolist()


def test_a_resumed_run_begins_with_the_policy_as_it_is(world, nano, tmp_path, steps):
    path = tmp_path / "run"
    assert run(config(world, nano, train__steps=2), path, sabotage=serve) == 0
    assert run(config(world, nano), path, resume=True, sabotage=serve) == 0
    again = RunDirectory.open(path)
    assert again.metrics()["rollouts/updates_behind"].tolist() == [0.0, 1.0, 0.0]
    assert texts(again, 2) == texts(steps(), 2) and texts(again, 3) != texts(steps(), 3)


def test_rollouts_that_fail_end_the_run(world, nano, tmp_path, capfd):
    def fail() -> None:
        serve()
        write = Server.write

        def failing(self: Server, *asked: Any) -> list[Written]:
            if threading.current_thread() is not threading.main_thread():
                raise skill1.generation.vllm_server.ServerError("the vLLM server is gone")
            return write(self, *asked)

        Server.write = failing

    assert run(config(world, nano), tmp_path / "run", sabotage=fail) == 1
    assert "ServerError: the vLLM server is gone" in capfd.readouterr().err
    assert RunDirectory.open(tmp_path / "run").latest_checkpoint().step == 1


def test_another_backend_has_no_weights_of_its_own(world, nano):
    with pytest.raises(ConfigError, match="train.overlap with policy.backend=transformers: only a server has weights"):
        check_run(config(world, nano, policy__backend="transformers"), 1)
