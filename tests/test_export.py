"""A run's checkpoint as a model folder, and models evaluated without a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from distributed_train import easy_environment
from huggingface_hub import ModelCard
from nano_runs import configure, make_nano
from peft import get_peft_model
from safetensors.torch import load_file
from tiny import tiny_policy
from transformers import AutoModelForCausalLM, AutoTokenizer

from skill1 import evaluate
from skill1.analysis.comparison import environment_of, stored_arms, success_table
from skill1.cli import main as cli
from skill1.config import ConfigError
from skill1.encoder import HashEncoder
from skill1.envs.alfworld.spec import ALFWORLD
from skill1.errors import RunError
from skill1.evaluate import evaluate_run
from skill1.library import SkillLibrary
from skill1.methods.skillrl.bank import parse_bank
from skill1.methods.skillrl.categories import known_categories
from skill1.methods.skillrl.live import LiveBank
from skill1.models import evaluate_model
from skill1.models.export import export, read_training
from skill1.policy import load_model, load_tokenizer
from skill1.store.checkpoints import mark_complete
from skill1.store.evaluation_folder import EvaluationFolder
from skill1.store.journal import LibraryError
from skill1.store.run_directory import RunDirectory
from skill1.updates.trl_config import lora_config


@pytest.fixture(scope="module")
def fresh(trained, tmp_path_factory) -> Path:
    """The trained run before any evaluation."""
    directory = tmp_path_factory.mktemp("fresh") / "run"
    shutil.copytree(trained, directory)
    for file in (directory / "evaluations").iterdir():
        file.unlink()
    return directory


@pytest.fixture(scope="module")
def exported(fresh, tmp_path_factory) -> Path:
    return export(fresh, tmp_path_factory.mktemp("models") / "mine")


@pytest.fixture(scope="module")
def adapted(world, nano, tmp_path_factory) -> Path:
    """A LoRA run with a checkpoint whose adapter is far from zero."""
    config = configure(world, nano, "no_library", policy__lora_rank=4)
    directory = tmp_path_factory.mktemp("adapted") / "run"
    made = RunDirectory.create(directory, config, "data")
    model, tokenizer = load_model(config.policy)
    adapter = get_peft_model(model, lora_config(config))
    torch.manual_seed(1)
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    for part in (adapter, tokenizer):
        part.save_pretrained(made.checkpoint_dir(3))
    mark_complete(made.checkpoint_dir(3), 3, {})
    made.close()
    return directory


@pytest.fixture(autouse=True)
def easy(monkeypatch):
    for module in (evaluate, evaluate_model):
        monkeypatch.setattr(module, "make_environment", easy_environment)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(5, 45)[None]).logits


def evaluated(model: Path | str, out: Path, preset: str | None = None, library: str | None = None, **overrides):
    given = {name.replace("__", "."): value for name, value in overrides.items()}
    config = evaluate_model.model_config(str(model), preset, given)
    return evaluate_model.evaluate_model(config, out, library=library, progress=False).evaluations


def test_the_model_and_tokenizer_load_as_any_other(fresh, exported):
    checkpoint = RunDirectory.open(fresh).checkpoint(2).path
    ours, theirs = load_file(checkpoint / "model.safetensors"), load_file(exported / "model.safetensors")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    model = AutoModelForCausalLM.from_pretrained(exported)
    assert torch.equal(logits(model), logits(load_model(RunDirectory.open(fresh).config.policy, str(checkpoint))[0]))
    text = "put a mug in shelf_1 . go to shelf_1 <end>"
    found = AutoTokenizer.from_pretrained(exported)(text)["input_ids"]
    assert (
        found == load_tokenizer(str(checkpoint))(text)["input_ids"] == load_tokenizer(str(exported))(text)["input_ids"]
    )
    assert len(set(found)) > 4  # Qwen2's own tokenizer, which transformers would take, knows none of the words


def test_the_skills_are_there_to_load_and_to_read(fresh, exported):
    config = RunDirectory.open(fresh).config.library
    theirs = SkillLibrary.load(exported / "library", config, HashEncoder())
    ours = SkillLibrary.load(RunDirectory.open(fresh).checkpoint(2).path / "library", config, HashEncoder())
    assert theirs.state_hash() == ours.state_hash() and len(ours) > 0
    page = (exported / "SKILLS.md").read_text().splitlines()
    rows = [line.split(" | ") for line in page if line.startswith("| s0")]
    assert sorted(row[0].removeprefix("| ") for row in rows) == [s.id for s in ours]
    assert page[0] == f"# {len(ours)} skills"
    assert [float(row[1]) for row in rows] == sorted((round(s.utility, 3) for s in ours), reverse=True)


def test_the_card_says_what_it_is_and_that_it_was_not_evaluated(fresh, exported):
    card, manifest = (exported / "README.md").read_text(), RunDirectory.open(fresh).manifest()
    header = ModelCard(card).data
    assert (header.library_name, header.base_model) == ("transformers", None) and "alfworld" in header.tags
    assert "Step 2 was **not evaluated**" in card and "{{" not in card
    assert f"| training data, SHA-256 | {manifest['data_hash']} |" in card
    assert "| preset, variant, seed | nano, full, 0 |" in card
    assert f"transformers {manifest['sessions'][0]['packages']['transformers']}" in card
    assert "| `environment.max_steps` | 50 | 6 |" in card and "step 2 of 2 of the run `run`" in card
    training = read_training(exported)
    assert (training.step, training.config) == (2, RunDirectory.open(fresh).config)
    assert "command" not in (exported / "skill1" / "manifest.json").read_text()


def test_the_card_repeats_the_run_s_evaluations(fresh, tmp_path):
    place = tmp_path / "run"
    shutil.copytree(fresh, place)
    [with_skills] = evaluate_run(place, splits=["valid_seen"], progress=False)
    evaluate_run(place, splits=["valid_seen"], library="none", step=1, progress=False)
    card = (export(place, tmp_path / "model") / "README.md").read_text()
    row = success_table({"step 2, library step2": with_skills.frame}, ALFWORLD).iloc[0]
    assert f"| {' | '.join(map(str, row))} |" in card
    assert (row["n"], row["passes"], row["seed"]) == (12, 2, 0)
    assert "step 1" not in card and "not evaluated" not in card
    assert "| step 1, library none |" in (export(place, tmp_path / "first", step=1) / "README.md").read_text()


def test_an_adapter_stays_one_or_is_merged(adapted, tmp_path):
    config = RunDirectory.open(adapted).config.policy
    expected = logits(load_model(config, str(adapted / "checkpoint-3"))[0])
    assert (expected - logits(load_model(config)[0])).abs().max() > 0.1
    as_is, merged = export(adapted, tmp_path / "adapter"), export(adapted, tmp_path / "merged", merge=True)
    assert not list(as_is.glob("model*")) and not list(merged.glob("adapter*"))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(as_is)), expected)
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(merged)), expected, atol=1e-5)
    assert "A LoRA adapter (rank 4)" in (as_is / "README.md").read_text()
    assert "adapter (rank 4) merged in" in (merged / "README.md").read_text()
    for folder in (as_is, merged):
        assert (
            AutoTokenizer.from_pretrained(folder)("mug")["input_ids"]
            == load_tokenizer(config.model)("mug")["input_ids"]
        )
        assert not (folder / "library").exists() and "without a skill library" in (folder / "README.md").read_text()


def test_a_bank_goes_along_and_is_used(world, warm, tmp_path):
    bank = parse_bank(
        {"general_skills": [{"skill_id": "gen_001", "title": "Look | around", "principle": "open drawers first"}]},
        known_categories("alfworld"),
    )
    config = configure(world, warm, "skillrl", evaluation__temperature=1.0, evaluation__passes=1)
    made = RunDirectory.create(tmp_path / "run", config, "data")
    model, tokenizer = load_model(config.policy)
    for part in (model, tokenizer):
        part.save_pretrained(made.checkpoint_dir(1))
    LiveBank(config, HashEncoder(), bank).save(made.checkpoint_dir(1) / "library")
    mark_complete(made.checkpoint_dir(1), 1, {})
    made.close()
    folder = export(tmp_path / "run", tmp_path / "model")
    assert "| gen_001 | general | Look \\| around | open drawers first |  |" in (folder / "SKILLS.md").read_text()
    assert "holds the 1 skills it had then" in (folder / "README.md").read_text()
    own, again = evaluate_run(tmp_path / "run", progress=False), evaluated(folder, tmp_path / "out")
    for mine, theirs in zip(own, again, strict=True):
        assert theirs.library == "given" and theirs.frame["steps"].equals(mine.frame["steps"])
    about = EvaluationFolder.open(tmp_path / "out").about
    assert about["library"]["skills"] == 1


def test_what_cannot_be_exported_leaves_nothing(fresh, exported, tmp_path):
    with pytest.raises(RunError, match=r"no complete checkpoint-9 \(it has 1, 2\)"):
        export(fresh, tmp_path / "m", step=9)
    with pytest.raises(RunError, match="exists: choose another folder"):
        export(fresh, exported)
    with pytest.raises(RunError, match="there is no adapter to merge"):
        export(fresh, tmp_path / "m", merge=True)
    with pytest.raises(RunError, match="there is no run at"):
        export(tmp_path / "nope", tmp_path / "m")
    damaged = tmp_path / "run"
    shutil.copytree(fresh, damaged)
    (damaged / "checkpoint-1" / "library" / "skills.jsonl").unlink()
    with pytest.raises(LibraryError, match="skills.jsonl does not exist"):
        export(damaged, tmp_path / "m", step=1)
    weights = damaged / "checkpoint-2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="does not load"):
        export(damaged, tmp_path / "m")
    for step in (1, 2):
        (damaged / f"checkpoint-{step}" / "COMPLETE").unlink()
    with pytest.raises(RunError, match="no complete checkpoint to export"):
        export(damaged, tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_an_exported_policy_gives_the_run_s_own_outcomes(fresh, exported, tmp_path):
    place, rates = tmp_path / "run", set()
    shutil.copytree(fresh, place)
    for library in (None, "none"):
        own = evaluate_run(place, library=library or "final", progress=False)
        again = evaluated(exported, tmp_path / f"with-{library}", library=library)
        assert [e.split for e in again] == ["valid_seen", "valid_unseen"]
        for mine, theirs in zip(own, again, strict=True):
            columns = {"library": mine.frame["library"], "seed": theirs.frame["seed"].astype("int64")}
            pd.testing.assert_frame_equal(theirs.frame.assign(**columns), mine.frame)
            assert theirs.summary == mine.summary
            rates.add(mine.summary["success"])
        about = json.loads((tmp_path / f"with-{library}" / "evaluation.json").read_text())
        assert about["training"] == {"variant": "full", "seed": 0, "step": 2}
        assert (about["library"] is None) == (library == "none")
        summary = json.loads((tmp_path / f"with-{library}" / "summary.json").read_text())
        assert summary["valid_seen"]["n"] == 12
    assert len(rates) > 1


def test_other_models_act_by_the_full_prompts(world, tmp_path):
    model = tiny_policy(tmp_path / "tiny")
    small = dict(
        environment__data=str(world), environment__max_steps=2, evaluation__passes=1, rollout__max_act_tokens=4,
        policy__dtype="float32",
    )  # fmt: skip
    [seen, unseen] = evaluated(
        model, tmp_path / "out", "paper", evaluation__splits=["valid_seen", "valid_unseen"], **small
    )
    assert seen.frame["variant"].tolist() == [str(model)] * 6 and seen.frame["seed"].isna().all()
    assert (seen.step, seen.library, len(unseen.frame)) == (0, "none", 6)
    table = success_table(stored_arms([tmp_path / "out"]), environment_of([tmp_path / "out"]))
    assert table["seed"].tolist() == ["-", "-"] and table["n"].tolist() == [6, 6]
    with pytest.raises(ConfigError, match="has no chat template, which the prompts need"):
        evaluated(make_nano(tmp_path / "nano"), tmp_path / "o", "paper", **small)
    with pytest.raises(ConfigError, match="is not a local folder|there is no folder"):
        evaluated(tmp_path / "nothing", tmp_path / "o", "paper", **small)
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_an_evaluation_resumes_where_it_was(world, exported, tmp_path, monkeypatch):
    [whole] = evaluated(exported, tmp_path / "whole", evaluation__splits=["valid_seen"], evaluation__passes=3)
    out, played = tmp_path / "out", []
    evaluated(exported, out, evaluation__splits=["valid_seen"], evaluation__passes=1)
    original = evaluate_model.play_together

    def watched(todo, *args, **kwargs):
        played.extend(todo)
        return original(todo, *args, **kwargs)

    monkeypatch.setattr(evaluate_model, "play_together", watched)
    [more] = evaluated(exported, out, evaluation__splits=["valid_seen"], evaluation__passes=3)
    assert sorted({job.number for job in played}) == [1, 2] and len(played) == 12
    pd.testing.assert_frame_equal(more.frame, whole.frame)
    [fewer] = evaluated(exported, out, evaluation__splits=["valid_seen"], evaluation__passes=1)
    assert len(played) == 12 and len(fewer.frame) == 6
    with pytest.raises(RunError, match=r"holds another evaluation \(environment.max_steps: it has 6, now 5\)"):
        evaluated(exported, out, environment__max_steps=5)
    with pytest.raises(RunError, match="holds another evaluation .library"):
        evaluated(exported, out, library="none")
    folder = EvaluationFolder.open(out)
    with pytest.raises(RunError, match="outcomes of valid_seen on other data"):
        folder.check_data("valid_seen", "other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").touch()
    with pytest.raises(RunError, match="exists and holds no evaluation of a model"):
        evaluated(exported, tmp_path / "full")


def test_the_commands_from_run_to_table(fresh, tmp_path, capsys):
    def run_command(*words) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        shown = capsys.readouterr()
        return shown.out if not ended.value.code else shown.err

    place = tmp_path / "run"
    shutil.copytree(fresh, place)
    model = tmp_path / "model"
    assert "there is no run" in run_command("compare", tmp_path / "nope")
    assert "has no evaluations: make them with" in run_command("compare", place)
    assert run_command("export", place, "--step", 1, "--out", model) == f"{model}\n"
    run_command("evaluate", "--out", place, "--step", 1, "--passes", 1, "--split", "valid_seen")
    lines = run_command("evaluate", "--model", model, "--out", tmp_path / "api", "--passes", 1, "--split", "valid_seen")
    assert json.loads(lines)["library"] == "given" and json.loads(lines)["step"] == 1
    rows = [json.loads(line) for line in run_command("compare", place, tmp_path / "api", "--json").splitlines()]
    first, second = rows
    assert first.pop("evaluation") == "run: step 1, library step1" and second.pop("evaluation") == "api"
    assert first == second and first["n"] == 6 and first["seed"] == 0
    assert "run: step 1, library step1" in run_command("compare", place)
    assert "run is given twice" in run_command("compare", place, place)


def test_a_number_never_stands_under_another_model_s_name(exported, nano, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        words = ["--model", str(exported), "--set", f"policy.model={nano}", "--out", str(tmp_path / "o")]
        cli.main(["evaluate", *words])
    assert ended.value.code == 2 and not (tmp_path / "o").exists()
    assert f"policy.model={nano} contradicts --model {exported}: leave one of them out" in capsys.readouterr().err
    assert evaluate_model.model_config(str(exported), None, {"policy.model": str(exported)}).policy.model == str(
        exported
    )


@pytest.mark.parametrize(
    "words, message",
    [
        ("--step 1 --model x", "--step is for runs, not for a --model"),
        ("--preset nano", "--preset is for a --model"),
        ("--endpoint http://x", "--endpoint is for a --model"),
        ("--model x --api-key-env KEY", "--api-key-env is for an --endpoint"),
        ("--model x --preset nanoo", "did you mean 'nano'?"),
        ("--model x --preset nano --data nowhere", "nowhere"),
    ],
)
def test_contradicting_options_are_refused(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "--out", str(tmp_path / "o"), *words.split()])
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
