"""What users of such projects run into: each kind of fault is met by one line, early, or by the right result."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from nano_runs import configure, forked, make_nano
from safetensors.torch import load_file, save_file
from test_crashes import own_disk, words
from test_runs import outcomes
from transformers import AutoTokenizer

import skill1.train
import skill1.trainer
from skill1.checks import check_run
from skill1.cli import main as cli
from skill1.config import ConfigError, load_config
from skill1.envs.alfworld.data import GameTree
from skill1.envs.webshop.data import stream_list
from skill1.errors import NotFinite, RunError
from skill1.evaluate import evaluate_run
from skill1.models.evaluate_model import evaluate_model, model_config
from skill1.models.export import export
from skill1.play import load_policy
from skill1.policy import load_model, load_tokenizer
from skill1.store.evaluation_folder import EvaluationFolder
from skill1.store.json_file import DamagedFile, read_json, to_json
from skill1.store.origin import weights_hash
from skill1.store.outcomes import read_outcomes, write_outcomes
from skill1.store.places import free_names
from skill1.store.run_directory import RunDirectory
from skill1.store.writable import check_writable
from skill1.updates.trl_config import trl_config

ROOT = Path(__file__).parents[1]


def spoil(folder: Path, change) -> None:
    """Change the weights of a model folder: name -> weight, or None to leave it out."""
    file = next(folder.glob("*.safetensors"))
    changed = {name: change(name, weight) for name, weight in load_file(file).items()}
    save_file({name: weight for name, weight in changed.items() if weight is not None}, file, {"format": "pt"})


def copied(folder: Path, place: Path) -> Path:
    shutil.copytree(folder, place)
    return place


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in arguments])
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2
    return line


@pytest.fixture(scope="module")
def lora(world, warm, tmp_path_factory) -> Path:
    """A LoRA run of one step, its base beside it."""
    place = tmp_path_factory.mktemp("lora")
    shutil.copytree(warm, place / "base")
    config = configure(
        world, place / "base", policy__lora_rank=2, train__steps=1, train__save_every=1, train__validate_every=0,
        evaluation__passes=1, evaluation__splits=["valid_seen"],
    )  # fmt: skip
    assert forked(lambda: skill1.train.train(config, place / "run"), place / "out") == 0, (place / "out").read_text()
    return place


# -- D1, D12, D13: whose number it is ---------------------------------------------------------------------------------


def test_an_evaluation_is_continued_with_the_same_weights_wherever_they_are(world, nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = copied(nano, tmp_path / "model")

    def evaluate(name: str, passes: int = 1, **more: object) -> int:
        config = configure(world, Path(name), evaluation__passes=passes, evaluation__splits="valid_seen", **more)
        return len(evaluate_model(config, tmp_path / "out", progress=False).evaluations[0].frame)

    assert evaluate("model") == 6
    monkeypatch.chdir(world)
    assert evaluate(str(model), 2, policy__cache_tokens=999) == 12  # how work is cut may differ
    model.rename(tmp_path / "moved")
    assert evaluate(str(tmp_path / "moved"), 2) == 12
    spoil(tmp_path / "moved", lambda name, weight: weight * 1.5)
    with pytest.raises(RunError, match="holds another evaluation .*model_hash: it has '"):
        evaluate(str(tmp_path / "moved"), 2)
    about = tmp_path / "out" / "evaluation.json"
    record = json.loads(about.read_text())
    del record["model_hash"]  # as older versions wrote it
    about.write_text(json.dumps(record))
    assert EvaluationFolder.open(tmp_path / "out").about["model_hash"] is None
    with pytest.raises(RunError, match=r"\(model: it has"):
        evaluate(str(copied(nano, tmp_path / "other")), 2)


def test_a_run_is_evaluated_under_its_own_conditions(trained, world, tmp_path):
    run = copied(trained, tmp_path / "run")
    for field in ("environment.max_steps", "policy.dtype"):
        with pytest.raises(ConfigError, match=f"{field} is the run's own: .*skill1 export"):
            evaluate_run(run, overrides={field: "1"})
    moved = copied(world, tmp_path / "moved")
    played = evaluate_run(
        run, splits="valid_seen", passes=1, overrides={"environment.data": str(moved)}, progress=False
    )
    assert [evaluation.split for evaluation in played] == ["valid_seen"]
    shutil.rmtree(next(moved.glob("*/train/*")))
    with pytest.raises(RunError, match="started on other data"):
        evaluate_run(run, overrides={"environment.data": str(moved)})


@pytest.mark.slow
def test_a_base_that_moved_is_named_and_one_that_changed_is_refused(lora, tmp_path, capsys):
    place = copied(lora, tmp_path / "lora")
    run, base, moved = place / "run", lora / "base", tmp_path / "moved"
    exported = export(run, tmp_path / "exported")
    base.rename(moved)
    try:
        for command in (["evaluate", "--out", run], ["export", run, "--out", tmp_path / "e"]):
            line = refused(capsys, *command)
            assert "trained from weights that are not there: restore them, or say where they are with --set" in line
            assert f"there is no folder {str(base)!r}" in line
        assert str(base) in refused(capsys, "evaluate", "--model", exported, "--out", tmp_path / "e")
        [there] = evaluate_run(run, overrides={"policy.model": str(moved)}, progress=False)
        assert len(there.frame) == 6
    finally:
        moved.rename(base)
    kept = copied(base, tmp_path / "kept")
    try:
        spoil(base, lambda name, weight: weight * 1.5)
        for attempt in (
            lambda: evaluate_run(run),
            lambda: evaluate_run(run, step=0),
            lambda: export(run, tmp_path / "e"),
            lambda: evaluate_model(model_config(str(exported)), tmp_path / "e"),
        ):
            with pytest.raises(RunError, match="was started from other weights than .*/base holds"):
                attempt()
    finally:
        shutil.rmtree(base)
        kept.rename(base)


def test_a_hub_revision_is_pinned_and_known_by_its_commit(nano, tmp_path, monkeypatch):
    repository = tmp_path / "hub" / "models--someone--policy"
    for number, commit in enumerate(("a" * 40, "b" * 40)):
        make_nano(repository / "snapshots" / commit, seed=number)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40)
    (repository / "refs" / "v1").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for revision, commit in ((None, "b"), ("v1", "a"), ("a" * 40, "a")):
        policy = load_config("nano", overrides={"policy.model": "someone/policy", "policy.revision": revision}).policy
        assert weights_hash(policy.model, None, policy.revision) == commit * 40
    assert weights_hash("someone/policy", str(nano)) not in (None, weights_hash("someone/policy", str(nano), "v1"))


# -- D4: numbers that are none ----------------------------------------------------------------------------------------


def test_a_tokenizer_of_another_model_is_refused(nano, tmp_path):
    model = copied(nano, tmp_path / "m")
    described = json.loads((model / "config.json").read_text())
    rows = described["vocab_size"] - 3
    (model / "config.json").write_text(json.dumps(described | {"vocab_size": rows}))
    spoil(model, lambda name, weight: weight[:rows].clone() if "embed_tokens" in name else weight)
    with pytest.raises(
        ConfigError, match=f"has tokens up to {rows + 2}, its weights embed {rows}: they are of two mod"
    ):
        load_model(load_config("nano", overrides={"policy.model": str(model)}).policy)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda name, w: w * float("nan") if "down_proj" in name else w, "weights that are no finite numbers .model"),
        (lambda name, w: w + float("inf") if "norm" in name else w, "weights that are no finite numbers"),
        (lambda name, w: None if "down_proj" in name else w, "lacks model.layers.0.mlp.down_proj.weight: fetch"),
        (lambda name, w: w[:-1].clone() if "down_proj" in name else w, "does not load"),
    ],
)
def test_a_model_that_is_not_whole_is_refused(nano, tmp_path, change, message):
    spoil(copied(nano, tmp_path / "m"), change)
    with pytest.raises(ConfigError, match=message):
        load_model(load_config("nano", overrides={"policy.model": str(tmp_path / "m")}).policy)


def test_a_policy_without_probabilities_writes_nothing(world, nano):
    policy = load_policy(configure(world, nano))
    with torch.no_grad():
        policy.model.get_input_embeddings().weight *= float("nan")
    with pytest.raises(NotFinite, match="no finite numbers: .*use an earlier checkpoint"):
        policy.generate(["go"], [(0,)], temperature=1.0, max_new_tokens=2)


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 9])
def test_divergence_is_found_before_a_checkpoint_is_written(world, warm, tmp_path, every):
    """The first step's update moves weights beyond what float32 can multiply."""
    config = configure(world, warm, train__learning_rate=1e30, train__save_every=every, train__validate_every=0,
                       train__kl=0.01)  # fmt: skip
    status = forked(lambda: cli.main(words(config, tmp_path / "run")), tmp_path / "out")
    printed = (tmp_path / "out").read_text()
    [error] = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert status == 2 and "Traceback" not in printed and "lower train.learning_rate" in error
    assert ("checkpoint-1 is not written" in error) == (every == 1)
    assert not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.mark.parametrize("value", ["inf", "nan", "-inf"])
def test_fields_are_finite(value):
    for field in ("train.learning_rate", "train.kl", "rollout.temperature", "train.timeout", "method.lambda_rerank"):
        with pytest.raises(ConfigError, match=field):
            load_config("nano", overrides={field: value})


# -- D5: places that cannot be written --------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written_is_found_before_it_is_needed(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for place in ("file", "file/below/it", "nowhere", "nowhere/x", "x" * 300):
        reason = "(Not a directory|No such file|File name too long)"
        with pytest.raises(RunError, match=f"cannot write .*: {reason}.*; make room there, or name another"):
            check_writable(tmp_path / place)
    check_writable(tmp_path / "new" / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "nowhere"]


@pytest.mark.slow
def test_commands_ask_before_they_play_or_train(trained, nano, world, tmp_path):
    """On a disk that is read-only, then on one that is full: nothing is played, each ends with one line."""
    disk = tmp_path / "disk"
    data = ["--set", f"environment.data={world}"]
    commands = [
        ["evaluate", "--model", nano, "--preset", "nano", *data, "--out", disk / "e"],
        ["evaluate", "--out", disk / "run"],
        ["select-study", disk / "run"],
        ["export", trained, "--out", disk / "x"],
        ["warmstart", "--out", disk / "w"],
        ["demonstrate", "--out", disk / "d", "--tasks", "2", "--set", f"policy.model={nano}", *data],
        ["train", "--out", disk / "t", "--dry-run", "--set", f"policy.model={nano}", *data],
        ["generate", "alfworld", "--out", disk / "g"],
        ["notebook", "00_tour", "--name", "n"],
        ["demo"],
    ]

    def act() -> None:
        own_disk(disk, 8 << 20)
        shutil.copytree(trained, disk / "run", ignore=shutil.ignore_patterns("optimizer.pt", ".lock"))
        os.chdir(disk)
        with (disk / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)
        for state in ("full", "read-only"):
            if state == "read-only":
                subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            for command in commands:
                try:
                    cli.main([str(word) for word in command])
                except SystemExit as ended:
                    print(f"{state} {' '.join(map(str, command[:2]))}: {ended.code}", flush=True)

    status = forked(act, tmp_path / "out")
    if status == 77:
        pytest.skip("mounting a file system is forbidden here")
    lines = (tmp_path / "out").read_text().splitlines()
    assert status == 0 and not any("Traceback" in line or "episode/s" in line for line in lines), lines
    assert sum(line.startswith("error: ") for line in lines) == 2 * len(commands)
    assert sum(line.endswith(": 2") for line in lines) == 2 * len(commands), lines
    assert sum("Read-only file system" in line for line in lines) == len(commands)
    assert sum("No space left" in line for line in lines) == len(commands)


def test_outcomes_that_the_disk_does_not_take_are_kept_elsewhere(tmp_path, monkeypatch):
    frame = outcomes(3)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RunError, match=r"file/evaluation.valid_seen.step_000003.parquet cannot be written") as error:
        write_outcomes(tmp_path / "file", "evaluation", frame)
    assert "2 of 4 episodes were won, and are kept in " in str(error.value)
    [kept] = tmp_path.glob("skill1-*")
    pd.testing.assert_frame_equal(read_outcomes(kept, "evaluation")[list(frame)], frame, check_dtype=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(RunError, match="2 of 4 episodes were won; make room and play again"):
        write_outcomes(tmp_path / "file", "evaluation", frame)


# -- D8, D11: what is missing -----------------------------------------------------------------------------------------


def test_a_folder_called_like_a_tracker_is_no_tracker(tmp_path, monkeypatch):
    """wandb leaves its runs in ./wandb, which Python would import."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="the package wandb is not installed"):
        check_run(load_config("nano", overrides={"train.report_to": "wandb"}), 1)


@pytest.mark.slow
def test_a_tracker_that_fails_is_one_line_and_left_out_by_resuming(world, nano, tmp_path):
    config = configure(world, nano, train__steps=1, train__save_every=1, train__validate_every=0,
                       train__report_to="tensorboard")  # fmt: skip
    error = type("UsageError", (Exception,), {"__module__": "tensorboard.errors"})

    def act() -> None:
        def fail(*args: object, **given: object) -> None:
            raise error("api_key not configured\n(no-tty)")

        skill1.train.check_run = lambda *given: None  # it is not installed
        skill1.trainer.trl_config = lambda given, folder: trl_config(replace(
            given, train=replace(given.train, report_to="none")), folder)  # fmt: skip
        skill1.train._RunCallback.on_train_begin = fail
        cli.main(words(config, tmp_path / "run"))

    assert forked(act, tmp_path / "out") == 2
    [line] = [line for line in (tmp_path / "out").read_text().splitlines() if line.startswith("error: ")]
    assert "train.report_to=tensorboard fails (api_key not configured (no-tty)): mend it, or leave it out" in line
    without = replace(config, train=replace(config.train, report_to="none"))
    assert forked(lambda: skill1.train.train(without, tmp_path / "run", resume=True), tmp_path / "out") == 0
    assert [c.step for c in RunDirectory.open(tmp_path / "run").checkpoints()] == [1]


def test_a_split_that_is_played_later_is_asked_for_first(world, nano, tmp_path, capsys):
    config = configure(world, nano, environment__validation_split="valid_sen")
    assert "has no split 'valid_sen'" in refused(capsys, *words(config, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_missing_games_are_counted(world, tmp_path, caplog):
    tree = copied(world, tmp_path / "tree")
    for file in sorted(tree.glob("*/train/*/*/game.tw-pddl"))[:5]:
        file.unlink()
    with caplog.at_level(logging.WARNING):
        assert len(GameTree(tree).games("train")) == 7
        [said] = caplog.messages
        assert "train holds 7 games; 5 more have no game.tw-pddl, the first look_at" in said
        (tree / "generation.json").unlink()
        assert len(GameTree(tree).games("valid_seen")) == 6
    assert "valid_seen holds 6 games; ALFWorld's own tree has 140" in caplog.messages[1]


# -- D14, D15: files --------------------------------------------------------------------------------------------------


def test_json_is_json_whatever_is_written():
    value = {"a": float("nan"), "b": [np.float32("inf"), np.int64(3), (1.5, np.bool_(True))], "c": None}
    assert json.loads(to_json(value), parse_constant=pytest.fail) == {"a": None, "b": [None, 3, [1.5, True]], "c": None}


def test_metrics_are_json_and_come_back_as_numbers(tmp_path):
    run = RunDirectory.create(tmp_path / "run", load_config("nano"), "data")
    run.log(1, {"kl": float("nan"), "grad_norm": float("inf")})
    run.log(2, {"kl": float("nan"), "grad_norm": 2.0})
    run.close()
    for line in run.metrics_file.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    metrics = run.metrics()
    assert metrics.dtypes.to_dict() == {"step": "int64", "kl": "float64", "grad_norm": "float64"}
    assert metrics["kl"].isna().all() and metrics["grad_norm"].isna().tolist() == [True, False]


def test_only_one_module_writes_json():
    """Others may hash it, print it or show it to a model."""
    dumped = {
        str(path.relative_to(ROOT / "skill1"))
        for path in (ROOT / "skill1").rglob("*.py")
        if any("json.dump" in line and ("write" in line or "replace_file" in line) for line in path.open())
    }
    assert dumped <= {"config.py", "envs/generation.py", "envs/alfworld/generate.py", "envs/webshop/store.py"}


def test_a_byte_order_mark_and_other_line_ends_are_read(tmp_path, world):
    mark = b"\xef\xbb\xbf"
    file = tmp_path / "items.json"
    file.write_bytes(mark + b'[{"a": 1},\r\n{"a": 2}]\r\n')
    assert list(stream_list(file)) == [{"a": 1}, {"a": 2}]
    tree = copied(world, tmp_path / "tree")
    game = sorted(tree.glob("*/train/*/*/game.tw-pddl"))[0]
    game.write_bytes(mark + game.read_bytes())
    games = GameTree(tree)
    assert games.game(games.games("train")[0].id).instruction
    config = RunDirectory.create(tmp_path / "run", load_config("nano"), "data")
    config.close()
    file = tmp_path / "run" / "config.json"
    file.write_bytes(mark + file.read_bytes().replace(b"\n", b"\r\n"))
    assert RunDirectory.open(tmp_path / "run").config == config.config


def test_a_damaged_file_is_named(tmp_path):
    run = RunDirectory.create(tmp_path / "run", load_config("nano"), "data")
    run.close()
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(RunError, match="has no manifest.json, which says what it was started from: restore it"):
        RunDirectory.resume(tmp_path / "run", load_config("nano"), "data")
    for content in (b"{", b"\xff\xfe{", b""):
        (tmp_path / "manifest.json").write_bytes(content)
        with pytest.raises(DamagedFile, match=r"manifest.json is damaged \(.*\): restore it"):
            read_json(tmp_path / "manifest.json")


# -- D3, D16, D17: words ----------------------------------------------------------------------------------------------


def test_what_cannot_change_results_says_so_where_it_is_declared():
    assert free_names(load_config("nano")) == {
        "policy.gradient_checkpointing", "policy.backend", "policy.generate_batch", "policy.cache_tokens",
        "policy.vllm_memory", "policy.vllm_url", "train.tokens_per_micro_batch", "train.rows_per_micro_batch",
        "train.steps", "train.validate_every", "train.save_every", "train.save_total_limit", "train.timeout",
        "train.report_to",
    }  # fmt: skip


def test_one_text_stands_for_a_list_of_it():
    for given in ("valid_seen", ["valid_seen"], ("valid_seen",)):
        assert load_config("nano", overrides={"evaluation.splits": given}).evaluation.splits == ("valid_seen",)


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "a/"])
def test_a_name_is_a_plain_name(name, capsys):
    assert "must be a plain name; use --out for a path" in refused(capsys, "train", "--name", name)


def test_no_text_is_no_path(capsys):
    for command in (["train", "--out", ""], ["export", "", "--out", "x"], ["generate", "alfworld", "--out", ""]):
        assert "'' is no path; the working folder is '.'" in refused(capsys, *command)


@pytest.mark.parametrize("field", ["policy.model", "library.encoder", "environment.train_split", "environment.data"])
def test_fields_are_not_empty(field):
    with pytest.raises(ConfigError, match=f"{field} = '': String should have at least 1 character"):
        load_config("nano", overrides={field: ""})


# -- D18: the tokenizer that was saved --------------------------------------------------------------------------------


@pytest.mark.slow
def test_auto_tokenizer_reads_what_was_saved(trained, lora):
    places = (ROOT / "data" / "nano-policy", ROOT / "data" / "nano-webshop-policy")
    for folder in (*places, trained / "checkpoint-2", lora / "base", lora / "run" / "checkpoint-1"):
        ids = [tokenizer("put a mug in shelf").input_ids for tokenizer in (AutoTokenizer.from_pretrained(folder),
                                                                            load_tokenizer(str(folder)))]  # fmt: skip
        assert ids[0] == ids[1] != []
