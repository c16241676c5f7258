"""What a run needs beside its own configuration."""

from __future__ import annotations

import pytest

from skill1.checks import check_run
from skill1.config import load_config
from skill1.registry import ConfigError


def test_every_process_needs_a_group() -> None:
    config = load_config("nano", overrides={"rollout.tasks_per_step": 2})
    check_run(config, 2)
    with pytest.raises(ConfigError, match=r"rollout.tasks_per_step=2 is less than the 3 processes"):
        check_run(config, 3)


def test_vllm_is_asked_for_before_anything_is_made(monkeypatch) -> None:
    monkeypatch.setattr("skill1.generation.vllm_server.find_spec", lambda name: None)
    for backend in ("vllm", "vllm_server"):
        config = load_config("nano", overrides={"policy.backend": backend})
        with pytest.raises(ConfigError, match=f"policy.backend={backend} needs the package vllm"):
            check_run(config, 1)


def test_a_tracker_that_is_not_installed_is_named(monkeypatch) -> None:
    config = load_config("nano", overrides={"train.report_to": "wandb"})
    monkeypatch.setattr("skill1.checks.get_available_reporting_integrations", lambda: ["tensorboard"])
    with pytest.raises(ConfigError, match=r"train.report_to=wandb: the package wandb is not installed"):
        check_run(config, 1)
    monkeypatch.setattr("skill1.checks.get_available_reporting_integrations", lambda: ["tensorboard", "wandb"])
    check_run(config, 1)
