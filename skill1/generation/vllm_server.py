"""What a vLLM server says of itself, and whether a run can write with it: asked before anything is created."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import requests
from trl.import_utils import is_vllm_available

from skill1.config import ConfigError, PolicyConfig
from skill1.errors import UserError, one_line
from skill1.store.resources import find_model

_PATIENCE = 240.0  # seconds for an answer: for the first one a server looks through its whole installation


class ServerError(UserError, RuntimeError):
    """The vLLM server cannot be reached or used. The message names its address and the fix."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running vLLM server."""

    instance: str  # differs after a restart
    model: str  # folder or hub id that it was started with
    logprobs: str  # of which logits it returns log-probs
    receives: bool  # whether it can be sent weights

    @classmethod
    def at(cls, url: str) -> Server:
        """Ask the server at `url`. Raises ServerError if there is none, or none that tells."""
        try:
            answer = requests.get(f"{url.rstrip('/')}/server_info", params={"config_format": "json"}, timeout=_PATIENCE)
            told = answer.json()["vllm_config"] if answer.ok else {}
        except requests.JSONDecodeError:
            told = {}
        except requests.RequestException as error:
            raise ServerError(
                f"there is no vLLM server at {url} ({one_line(error)}): start it with `trl vllm-serve`, or correct "
                "policy.vllm_url"
            ) from error
        if not told:
            raise ServerError(
                f"what answers at {url} is no vLLM server that can be sent weights (HTTP {answer.status_code} for "
                "/server_info): start one with `trl vllm-serve`, on a port that is free, or correct policy.vllm_url"
            )
        model = told["model_config"]
        return cls(
            str(told["instance_id"]), model["model"], model["logprobs_mode"], told["weight_transfer_config"] is not None
        )


def check_installed(backend: str) -> None:
    """Raise ConfigError if vLLM, which a backend needs, is not installed."""
    if find_spec("vllm") is None:
        raise ConfigError(
            f"policy.backend={backend} needs the package vllm (`pip install trl[vllm]`): install it, or use transformers or "
            "continuous"
        )


def check_vllm(config: PolicyConfig) -> None:
    """Check that a run whose `policy.backend` is one of vLLM's can write.

    Raises:
        ConfigError: vLLM is not installed, or in a version that the installed TRL does not support.
        ServerError: there is no server at `policy.vllm_url`, it serves another model, or it was not started for training.
    """
    check_installed(config.backend)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        is_vllm_available()
    if told:  # TRL warns of what it does not support
        said = one_line(told[0].message)  # type: ignore[arg-type]
        raise ConfigError(f"policy.backend={config.backend}: {said}")
    if config.backend == "vllm_server":
        _check_server(config)


def _check_server(config: PolicyConfig) -> None:
    server = Server.at(config.vllm_url)
    start = f"start it with `trl vllm-serve --model {config.model}`"
    if not _same_model(server.model, config.model):
        raise ServerError(
            f"the vLLM server at {config.vllm_url} serves {server.model}, but policy.model is {config.model}: {start}, or "
            "correct policy.vllm_url"
        )
    if not server.receives:
        raise ServerError(f"the vLLM server at {config.vllm_url} cannot be sent weights: {start}")
    if server.logprobs != "processed_logprobs":
        raise ServerError(
            f"the vLLM server at {config.vllm_url} returns {server.logprobs}, not the log-probs of what was sampled: {start}"
        )


def _same_model(served: str, wanted: str) -> bool:
    found = find_model(wanted)
    return served in (wanted, found) or (Path(found).is_dir() and Path(served).resolve() == Path(found).resolve())
