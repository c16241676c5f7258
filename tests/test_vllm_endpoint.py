"""vLLM's OpenAI-compatible server, the real one on a CPU, as `evaluate --endpoint`; asked from the kit's own environment.

Run by `make test-vllm`, which names where vLLM is installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import vllm_cpu
from test_examples import GARDEN, demonstrations
from tiny import taught_policy
from vllm_serving import Server

from skill1.generation.endpoint import EndpointError
from skill1.models import evaluate_model
from skill1.store.evaluation_folder import EvaluationFolder
from skill1.store.rollout_log import read_rollouts

VLLM = os.environ.get("SKILL1_VLLM")
pytestmark = pytest.mark.skipif(VLLM is None, reason="vLLM is in an environment of its own: make test-vllm")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught_policy(tmp_path_factory.mktemp("garden") / "model", demonstrations(), head=32)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The tokenizer has a folder of its own: beside a model, AutoTokenizer takes the class by the architecture."""
    folder, python = tmp_path_factory.mktemp("server"), Path(str(VLLM)).absolute() / "python"
    words = folder / "tokenizer"
    words.mkdir()
    for file in model.glob("*token*"):
        (words / file.name).write_bytes(file.read_bytes())
    for file in model.glob("chat_template*"):
        (words / file.name).write_bytes(file.read_bytes())
    command = [
        str(python.with_name("vllm")),
        "serve",
        str(model),
        "--served-model-name",
        "gardener",
        "--dtype",
        "float32",
    ]
    found = Server(
        [*command, "--tokenizer", str(words), "--enforce-eager"], vllm_cpu.vllm_home(folder / "home", python), folder
    )
    found.start()
    yield found
    found.kill()


def settings() -> dict[str, object]:
    return {
        "environment.name": GARDEN, "environment.max_steps": 4, "rollout.max_act_tokens": 4, "policy.dtype": "float32",
        "evaluation.temperature": 0.0, "evaluation.passes": 1, "evaluation.splits": ("test",),
    }  # fmt: skip


def texts(folder: Path) -> list[list[str]]:
    file = EvaluationFolder.open(folder).rollouts_file("test", 0)
    return [[turn.value for turn in rollout.turns] for rollout in read_rollouts(file, None)]


def test_greedy_answers_are_those_of_transformers(server: Server, model: Path, tmp_path: Path) -> None:
    own = evaluate_model.model_config(str(model), "small", settings())
    wanted = evaluate_model.evaluate_model(own, tmp_path / "own", keep_rollouts=True, progress=False)
    config = evaluate_model.model_config("gardener", "small", settings(), endpoint=True)
    found = evaluate_model.evaluate_model(
        config, tmp_path / "served", endpoint=f"{server.url}/v1", keep_rollouts=True, progress=False
    )
    assert found.unusable == 0 and found.replies == found.evaluations[0].frame["steps"].sum()
    assert texts(tmp_path / "served") == texts(tmp_path / "own")
    assert found.evaluations[0].summary["success"] == wanted.evaluations[0].summary["success"] > 0


def test_another_model_is_refused_by_the_server(server: Server, tmp_path: Path) -> None:
    config = evaluate_model.model_config("other", "small", settings(), endpoint=True)
    with pytest.raises(
        EndpointError, match="refuses a request to model 'other' .*does not exist.*check the address, model"
    ):
        evaluate_model.evaluate_model(config, tmp_path / "out", endpoint=f"{server.url}/v1", progress=False)
