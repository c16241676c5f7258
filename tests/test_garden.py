"""The example environment: found by its file, played through the vector protocol, in its own words in full prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from skill1.envs.base import DataError
from skill1.envs.make import environment_spec
from skill1.prompts.base import ActContext
from skill1.prompts.full import FullPrompts

GARDEN = environment_spec(f"{Path(__file__).resolve().parents[1] / 'examples' / 'garden.py'}:GARDEN")


@pytest.fixture
def environment():
    return GARDEN.open(GARDEN.options(max_steps=4))


def cares(environment, tasks):
    """What each task's plant needs, as its category says: the command, once one stands before it."""
    plants = [start.instruction.split()[2] for start in environment.reset(tasks)]
    return [(f"go to {plant}", f"{task.category.lower()} {plant}") for plant, task in zip(plants, tasks, strict=True)]


def test_every_task_can_be_won_and_test_gardens_teach_what_training_gardens_do(environment):
    needs = {}
    for split in GARDEN.splits:
        tasks = environment.tasks(split)
        assert [task.game for task in tasks] == sorted({task.game for task in tasks})
        assert {task.category for task in tasks} == set(GARDEN.categories)
        goes, treats = zip(*cares(environment, tasks), strict=True)
        assert all(s.admissible and not s.done for s in environment.step(goes))
        assert all(s.won and s.reward == 1.0 and s.done for s in environment.step(treats))
        needs[split] = {tuple(reversed(treat.split())) for treat in treats}
    assert needs["test"] <= needs["train"] and len(needs["train"]) == 6
    assert environment.has("train") and not environment.has("valid_seen")
    with pytest.raises(DataError, match="no split 'valid_seen'; they have train and test"):
        environment.tasks("valid_seen")


def test_the_wrong_care_loses_and_foreign_commands_do_nothing(environment):
    task = environment.tasks("train")[0]
    [(go, treat)] = cares(environment, [task])
    wrong = next(care for care in ("prune", "water") if not treat.startswith(care))
    [step] = environment.step([treat])  # not before one stands there
    assert (step.observation.text, step.admissible, step.done) == ("Nothing happens.", False, False)
    environment.step([go])
    [step] = environment.step([f"{wrong} {treat.split()[1]}"])
    assert step.done and not step.won and step.reward == 0.0 and step.observation.text.endswith("wilts.")


def test_the_step_limit_ends_an_episode_and_a_restart_is_the_same(environment):
    task = environment.tasks("test")[3]
    starts = [environment.reset([task]) for _ in range(2)]
    assert starts[0] == starts[1]
    assert [environment.step(["wait"])[0].done for _ in range(4)] == [False, False, False, True]
    assert environment.data_hash("train") == GARDEN.open(GARDEN.options(max_steps=9)).data_hash("train")
    assert environment.data_hash("train") != environment.data_hash("test")


def test_full_prompts_speak_of_gardens(environment):
    prompts = FullPrompts(GARDEN.words)
    [start] = environment.reset(environment.tasks("train")[:1])
    text = prompts.act(ActContext(start, "", 0, (), start))
    assert "solving a gardening task in a text game" in text and start.instruction in text
    assert "which plants to go to" in prompts.distill(start, True, [(start.text, "wait")], None)
    assert "household" not in text and "shop" not in text
