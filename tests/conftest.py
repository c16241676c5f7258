"""Shared fixtures and markers."""

from __future__ import annotations

import fcntl
import gc
import sys
from pathlib import Path

import pytest

import skill1.running  # noqa: F401  before torch and jsonschema, whose loading it makes quicker
from skill1.store.session import describe_session


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, whole: what is left at the end is short, so that the workers end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Prepare for training runs that are forked.

    Each would read the versions of all packages, and collect, and so copy, what is imported.
    """
    if "torch" in sys.modules:
        describe_session()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recorded and published data beside the repository; tests that need it skip where it is not."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data folder (expected {folder.name} under ../shared beside the repository)")
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny generated ALFWorld world: 12 train, 6 valid_seen, 6 valid_unseen games."""
    from nano_runs import make_world

    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained nano policy, 32 wide, 1 layer."""
    from nano_runs import make_nano

    return make_nano(tmp_path_factory.mktemp("nano"))


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Folder of a nano policy after seconds of warm start, one for all workers."""
    from nano_runs import make_warm

    made = tmp_path_factory.mktemp("warm")
    if worker_id == "master":  # alone
        return make_warm(made)
    place = tmp_path_factory.getbasetemp().parent / "warm"
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not place.exists():
            make_warm(made).rename(place)
    return place


@pytest.fixture(scope="session")
def trained(world: Path, warm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, with a checkpoint after each, on games that are easy to win; tests may evaluate it."""
    from distributed_train import run
    from nano_runs import configure

    directory = tmp_path_factory.mktemp("trained") / "run"
    config = configure(
        world, warm, train__steps=2, train__save_every=1, train__validate_every=0, environment__max_steps=6,
        rollout__group_size=8, method__max_distill_tokens=16, evaluation__temperature=1.0, evaluation__passes=2,
    )  # fmt: skip
    assert run(config, directory) == 0
    return directory
