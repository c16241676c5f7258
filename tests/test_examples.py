"""The worked examples of docs/extending.md: an environment, a method, a prompt set and skills of one's own, end to end."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nano_runs import settings as nano_settings
from tiny import taught_policy
from without_kernels import run_cells

from skill1.analysis.study import load as load_study
from skill1.cli.main import main
from skill1.config import load_config
from skill1.encoder import load_encoder
from skill1.envs.make import environment_spec, make_environment
from skill1.evaluate import evaluate_run
from skill1.library import SkillLibrary
from skill1.prompts import ActContext, make_prompts
from skill1.running.launch import set_words
from skill1.store.journal import Journal
from skill1.store.run_directory import RunDirectory
from skill1.store.skill_source import read_written
from skill1.train import train

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES, NOTEBOOKS = ROOT / "examples", ROOT / "notebooks"
GARDEN = f"{EXAMPLES / 'garden.py'}:GARDEN"
GARDEN_CONFIG = load_config("small", overrides={"environment.name": GARDEN}).environment


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instruct-style model, taught in seconds to answer the garden's prompts in the form they ask for."""
    return taught_policy(tmp_path_factory.mktemp("examples") / "model", demonstrations(), steps=150)


def demonstrations() -> list[tuple[str, str]]:
    """Prompts of every stage in the training gardens, with answers that parse; half of the actions are right."""
    environment, prompts = environment_spec(GARDEN).open(GARDEN_CONFIG), make_prompts("full", GARDEN)
    rows = []
    for task, start in zip(environment.tasks("train"), environment.reset(environment.tasks("train")), strict=True):
        wanted = start.instruction.removeprefix("make the ").removesuffix(" bloom.")
        care = f"{task.category.lower()} {wanted}"
        rows.append((prompts.query(start), f"<query>{wanted}</query>"))
        rows.append((prompts.rerank(start, [f"{care} .", "go"]), "<rank>1,2</rank>"))
        rows += 3 * [(prompts.act(ActContext(start, "", 0, (), start)), f"<action>go to {wanted}</action>")]
        there = replace(start, text=f"You stand before the {wanted}.", admissible=(care,))
        past = ((start.text, f"go to {wanted}"),)
        rows += 3 * [(prompts.act(ActContext(start, "", 1, past, there)), f"<action>{care}</action>")]
        lesson = json.dumps({"action_lesson": f"{care} to let it bloom", "description_head": f"a {wanted} is to bloom"})
        for won in (True, False):
            rows.append((prompts.distill(start, won, [*past, (there.text, care)], None), lesson))
    return rows


def settings(model: Path, **more: Any) -> dict[str, Any]:
    """Two groups of three episodes of four actions, with the paper's prompts."""
    short = {f"method.max_{stage}_tokens": 6 for stage in ("query", "rerank", "distill")}
    return {
        "policy.model": str(model),
        "policy.dtype": "float32",
        "policy.lora_rank": 0,
        "policy.gradient_checkpointing": False,
        "environment.name": GARDEN,
        "environment.validation_split": "test",
        "environment.max_steps": 4,
        "evaluation.splits": ["test"],
        "library.encoder": "hash",
        "rollout.tasks_per_step": 2,
        "rollout.group_size": 3,
        "rollout.max_prompt_tokens": 480,
        "rollout.max_act_tokens": 6,
        "train.steps": 2,
        "train.kl": 0.0,
        "train.validate_every": 1,
        "train.validation_tasks": 4,
        "train.save_every": 1,
        **short,
        **more,
    }


def test_each_example_is_one_short_file() -> None:
    assert len((EXAMPLES / "garden.py").read_text().splitlines()) <= 80
    assert len((EXAMPLES / "rloo.py").read_text().splitlines()) <= 40


# -- an environment ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_garden_is_swept_and_its_study_is_read_by_every_notebook(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line: 01_train and 02_evaluate of two variants, then the cells of the others on the study."""
    monkeypatch.chdir(tmp_path)
    # 05_library reads a run that has skills, whether this one wins an episode or not
    given = settings(model) | {"library.start": str(EXAMPLES / "skills")}
    # the library's and Skill1's own options are no part of a run without them
    words = ["sweep", "--name", "garden", "--preset", "small", "--variants", "full,no_library", "--seeds", "0"]
    words += ["--passes", "1", "--jobs", "2", *set_words(given)]

    def command() -> str:
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr().out
        assert not ended.value.code, said
        return said

    assert "results/garden/manifest.json" in command()
    study = load_study(tmp_path / "results" / "garden")
    assert sorted(study.variants) == ["full", "no_library"]
    assert study.metrics["step"].tolist() == 2 * [1, 2] and len(study.metrics.columns) > 40
    arms = study.evaluations.groupby(["variant", "step", "library"])["game"].agg(["size", "nunique"])
    assert set(arms.index) == {
        ("full", 0, "none"), ("full", 2, "step2"), ("full", 2, "none"), ("full", 2, "step0"), ("no_library", 2, "none"),
    }  # fmt: skip
    assert (arms["size"] == arms["nunique"]).all() and set(study.evaluations["split"]) == {"test"}
    assert study.manifest["policy_hash"] and set(study.manifest["data_hash"]) == {"train", "test"}
    with monkeypatch.context() as patched:  # whoever starts a process now fails
        patched.setattr("skill1.running.local.subprocess.Popen", None)
        assert "2 runs, 2 done" in command()

    done = study.path / "full" / "seed0"
    assert (done / "01_train.ipynb").exists() and (done / "02_evaluate.ipynb").exists()
    assert RunDirectory.open(done / "run").config.environment.name == GARDEN
    assert environment_spec(GARDEN).benchmark is None  # no published numbers stand beside it
    parameters = {
        "03_ablations": {"study": str(study.path)},
        "04_per_category": {"study": str(study.path)},
        "05_library": {"run": str(done / "run"), "out": str(tmp_path / "figures")},
        "06_paper": {"study": str(study.path)},
        "07_trajectories": {"run": str(done / "run"), "out": str(tmp_path / "page.html")},
    }
    for name, asked in parameters.items():
        assert run_cells(NOTEBOOKS / f"{name}.ipynb", asked)


def test_a_garden_is_won_by_who_knows_it() -> None:
    environment = make_environment(GARDEN_CONFIG)
    tasks = environment.tasks("train")
    assert len(tasks) == 40 and {task.category for task in tasks} <= {"Prune", "Shade", "Water"}
    [start] = environment.reset(tasks[:1])
    wanted = start.instruction.removeprefix("make the ").removesuffix(" bloom.")
    [step] = environment.step([f"go to {wanted}"])
    assert not step.done and step.admissible
    [step] = environment.step([f"{tasks[0].category.lower()} {wanted}"])
    assert step.won and step.done


# -- a method ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_method_of_ones_own_is_trained_and_evaluated(world: Path, nano: Path, tmp_path: Path) -> None:
    rloo = f"{EXAMPLES / 'rloo.py'}:RLOO"
    given = nano_settings(world, nano, method=rloo) | {"method.name": rloo, "train.steps": 2}
    config = load_config("nano", overrides=given)
    assert config.method.name == rloo and config.library is None
    assert train(config, tmp_path / "run")
    [evaluation] = evaluate_run(tmp_path / "run", splits=["valid_seen"], passes=1, progress=False)
    assert evaluation.library == "none" and len(evaluation.frame) == 6
    rollouts = RunDirectory.open(tmp_path / "run").read_rollouts(2)
    assert {turn.stage for r in rollouts for turn in r.turns} == {"act"}


# -- a prompt set -----------------------------------------------------------------------------------------------------


def test_a_prompt_set_of_ones_own_words_and_reads_actions(model: Path, tmp_path: Path) -> None:
    prompts = f"{EXAMPLES / 'terse_prompts.py'}:make"
    config = load_config("small", overrides=settings(model) | {"policy.prompts": prompts, "train.steps": 1})
    assert train(config, tmp_path / "run")
    [first, *_] = RunDirectory.open(tmp_path / "run").read_rollouts(1)
    act = first.turns_of("act")[0]
    assert not act.well_formed  # an untrained model names no admissible action
    made = make_prompts(prompts, GARDEN)
    said = made.parse_action("I think\n> Go To Rose", ("go to rose", "go to fern"))
    assert (said.value, said.well_formed) == ("go to rose", True)
    assert not made.parse_action("prune the rose", ("go to rose",)).well_formed


# -- skills of one's own ----------------------------------------------------------------------------------------------


def test_the_skills_in_folders_are_those_of_the_file() -> None:
    assert read_written(EXAMPLES / "skills") == read_written(EXAMPLES / "skills.jsonl")


@pytest.mark.slow
def test_a_run_starts_with_skills_that_somebody_wrote(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what it learns is shown, exported, edited, compared, played with, imported and merged, as the page says."""
    given = settings(model) | {"library.start": str(EXAMPLES / "skills"), "evaluation.passes": 1}
    config, path = load_config("small", overrides=given), tmp_path / "results" / "with-skills"
    assert train(config, path)
    run = RunDirectory.open(path)
    assert all(len(r.candidates) == 2 and r.selected for r in run.read_rollouts(1))
    first = Journal(run.library_dir / "journal.jsonl").events()[0]
    assert (first.step, len(first.admitted)) == (0, 2)
    written = read_written(EXAMPLES / "skills.jsonl")
    assert [s.strategy for s in first.admitted] == [skill.strategy for skill in written]
    library = SkillLibrary.load(run.checkpoint(2).path / "library", config.library, load_encoder("hash"))
    assert {s.count for s in library} == {13}  # one at the start, and six episodes in each of two steps
    before, after = (evaluate_run(path, step=step, progress=False)[0] for step in (0, 2))
    assert (before.library, after.library) == ("step0", "step2") and len(before.frame) == len(after.frame) == 20

    monkeypatch.chdir(tmp_path)
    section = (ROOT / "docs" / "extending.md").read_text().partition("## Skills of your own")[2]
    commands = re.findall(r"^skill1 ((?:skills|evaluate --name) .*)$", section, re.MULTILINE)
    said = {}
    for words in commands:
        with pytest.raises(SystemExit) as ended:
            main(words.split())
        said[" ".join(words.split()[:2])] = capsys.readouterr().out
        assert not ended.value.code
        if "export" in words:
            page = sorted(Path("mine").iterdir())[0] / "SKILL.md"
            page.write_text(f"{page.read_text()}Then look.\n")
    assert list(said) == [
        "skills show", "skills export", "skills compare", "evaluate --name", "skills import", "skills merge",
    ]  # fmt: skip
    assert "1 in both (0 with another U or n), 1 in A alone, 1 in B alone" in said["skills compare"]
    assert json.loads(said["evaluate --name"])["n"] == 20
    assert [(s.strategy.endswith("Then look."), s.count) for s in read_written(Path("mine.jsonl"))] == [
        (True, 13), (False, 13),
    ]  # fmt: skip
    assert json.loads(said["skills merge"]) == {"file": "both.jsonl", "skills": 3, "in_both": 1}
