"""What a resumed run may find changed: places of files and how work is cut; and which version an old run needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from nano_runs import configure

from skill1.config import Config, load_config, method_of
from skill1.errors import RunError
from skill1.generation.endpoint import EndpointError
from skill1.store.origin import weights_hash
from skill1.store.places import absolute_places, place_names
from skill1.store.run_directory import RunDirectory


def create(path: Path, config: Config) -> RunDirectory:
    run = RunDirectory.create(path, config, "data", weights_hash(config.policy.model))
    run.close()
    return run


def resume(path: Path, config: Config) -> RunDirectory:
    RunDirectory.resume(path, config, "data", weights_hash(config.policy.model)).close()
    return RunDirectory.open(path)


def configured(**overrides: object) -> Config:
    """The nano preset on a policy and data given by relative paths."""
    given = {"policy.model": "policy", "environment.data": "games", "library.encoder": "encoder"}
    return load_config("nano", overrides=given | {name.replace("__", "."): v for name, v in overrides.items()})


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working folder: it has a policy, data and an encoder."""
    place = tmp_path / "here"
    for name in ("policy", "games", "encoder"):
        (place / name).mkdir(parents=True)
    (place / "policy" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(place)
    return place


# -- places -----------------------------------------------------------------------------------------------------------


def test_the_paths_of_a_run_are_absolute_and_other_names_stay(here, monkeypatch):
    run = create(here / "run", configured())
    assert run.config == RunDirectory.open(here / "run").config
    found = (run.config.policy.model, run.config.environment.data, run.config.library.encoder)
    assert found == (str(here / "policy"), str(here / "games"), str(here / "encoder"))
    named = load_config("paper", overrides={"environment.data": "missing", "library.encoder": "pinned"})
    assert absolute_places(named) == named  # a hub id, a folder that is not there, a name
    monkeypatch.chdir(Path(__file__).parents[1])
    shipped = load_config("nano")
    assert absolute_places(shipped) == shipped and Path(shipped.policy.model).is_dir()


def test_the_fields_that_are_places_say_so_in_their_unit():
    assert place_names(load_config("nano")) == {
        "policy.model", "policy.adapter", "environment.data", "library.encoder", "library.start"
    }  # fmt: skip
    assert place_names(load_config("nano", "skillrl")) == {
        "policy.model", "policy.adapter", "environment.data", "method.encoder", "method.bank"
    }  # fmt: skip


def test_a_run_is_resumed_where_it_and_its_files_have_moved(here, tmp_path):
    create(here / "run", configured())
    there = tmp_path / "there"
    shutil.move(here, there)
    given = {
        "policy.model": there / "policy",
        "environment.data": there / "games",
        "library.encoder": there / "encoder",
    }
    moved = load_config("nano", overrides={name: str(path) for name, path in given.items()})
    run = resume(there / "run", moved)
    assert run.config == moved
    assert run.manifest()["sessions"][1]["changed"] == {
        name: [str(here / path.name), str(path)] for name, path in given.items()
    }
    run.check_config(configured(environment__data="elsewhere", policy__model=str(there / "policy"),
                                library__encoder=str(there / "encoder")))  # fmt: skip


def test_other_weights_are_no_place_to_resume_from(here):
    create(here / "run", configured())
    shutil.copytree("policy", "other")
    resume(here / "run", configured(policy__model="other"))
    Path("other/model.safetensors").write_bytes(b"weighty")
    with pytest.raises(RunError, match=r"started from other weights than .*/other holds \(hash \w+, now \w+\)"):
        resume(here / "run", configured(policy__model="other"))
    with pytest.raises(RunError, match="policy.model: the run has .*, now 'Qwen/Qwen3-0.6B'"):
        resume(here / "run", configured(policy__model="Qwen/Qwen3-0.6B"))


def test_the_hash_of_weights_is_of_all_files_and_of_nothing_else(tmp_path):
    def digest(**files: bytes) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_bytes(content)
        return weights_hash(str(folder))

    one = digest(a__safetensors=b"1", b__safetensors=b"2")
    assert one == digest(b__safetensors=b"2", a__safetensors=b"1", readme__md=b"3")
    assert len({one, digest(a__safetensors=b"2", b__safetensors=b"1"), digest(a__safetensors=b"12")}) == 3
    assert weights_hash("Qwen/Qwen3-0.6B") is None


def test_an_environment_variable_can_stand_for_the_data(here):
    create(here / "run", configured())
    assert resume(here / "run", configured(environment__data=None)).config.environment.data is None


# -- how the work is cut ----------------------------------------------------------------------------------------------

CUT = {
    "train.tokens_per_micro_batch": 256, "train.rows_per_micro_batch": 3, "policy.generate_batch": 5,
    "policy.cache_tokens": 999, "policy.gradient_checkpointing": True, "policy.backend": "continuous",
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_a_run_that_was_out_of_memory_is_resumed_with_less(here, name):
    before = create(here / "run", configured()).config
    run = resume(here / "run", configured(**{name.replace(".", "__"): CUT[name]}))
    section, _, leaf = name.partition(".")
    assert getattr(getattr(run.config, section), leaf) == CUT[name]
    old = getattr(getattr(before, section), leaf)
    assert run.manifest()["sessions"][1]["changed"] == {name: [old, CUT[name]]} and old != CUT[name]
    with pytest.raises(RunError, match=name):
        run.check_config(configured())  # it is not what that configuration would have made


@pytest.mark.parametrize("name, value", [("train.rows_per_update", 9), ("policy.dtype", "bfloat16"), ("train.kl", 0.1)])
def test_what_changes_results_is_not_resumed_with(here, name, value):
    create(here / "run", configured())
    with pytest.raises(RunError, match=f"{name}: the run has .*, now {value!r}"):
        resume(here / "run", configured(**{name.replace(".", "__"): value}))


# -- runs of other versions -------------------------------------------------------------------------------------------


def old_run(path: Path, sessions: object) -> Path:
    """A run as the version before the configuration by method left it."""
    path.mkdir()
    config = {
        "format": 1,
        "preset": "nano",
        "variant": "full",
        "credit": {"lambda1": 0.3},
        "library": {"enabled": True},
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "manifest.json").write_text(json.dumps({"data_hash": "data", "sessions": sessions}))
    return path


@pytest.mark.parametrize(
    "sessions, needed",
    [
        ([{"git": {"commit": "0" * 40}}, {"git": {"commit": "c0ffee" + "0" * 34}}], "git commit c0ffee" + "0" * 34),
        ([{"git": None}], "the version that made it"),
        ([], "the version that made it"),
        (None, "the version that made it"),
    ],
)
def test_an_old_run_is_refused_in_a_line_that_names_the_version_it_needs(tmp_path, sessions, needed):
    path = old_run(tmp_path / "old", sessions)
    for attempt in (RunDirectory.open, lambda p: RunDirectory.resume(p, load_config("nano"), "data")):
        with pytest.raises(RunError) as error:
            attempt(path)
        [line] = str(error.value).splitlines()
        assert line.startswith(f"{path} was made by another version of skill1")
        assert "has format 1, this version of skill1 reads 2" in line and f"use {needed}" in line.replace(
            "the version of git", "git"
        )


def test_an_old_run_without_a_manifest_is_refused_too(tmp_path):
    path = old_run(tmp_path / "old", [])
    (path / "manifest.json").unlink()
    with pytest.raises(RunError, match="format 1.*the version that made it"):
        RunDirectory.open(path)


def test_a_run_is_opened_without_what_its_method_needed_to_start(world, nano, tmp_path, monkeypatch):
    """A bank's file can be gone and a teacher's key unset when the run is read; training still asks for them."""
    bank = tmp_path / "bank.json"
    bank.write_text(json.dumps({"general_skills": [], "task_specific_skills": {}, "common_mistakes": []}))
    monkeypatch.setenv("SKILL1_TEST_KEY", "secret")
    options = {
        "method__bank": str(bank), "method__teacher": "endpoint", "method__teacher_url": "http://127.0.0.1:9",
        "method__teacher_model": "m", "method__teacher_key": "SKILL1_TEST_KEY",
    }  # fmt: skip
    config = configure(world, nano, "skillrl", **options)
    create(tmp_path / "run", config)
    bank.unlink()
    monkeypatch.delenv("SKILL1_TEST_KEY")
    assert RunDirectory.open(tmp_path / "run").config == config
    with pytest.raises(EndpointError, match="SKILL1_TEST_KEY is not set"):
        method_of(config).check_start(config)
