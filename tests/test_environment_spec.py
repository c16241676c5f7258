"""The specs of the environments: found by name, complete, and what they say of kinds, splits and categories."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from skill1.config import ConfigError
from skill1.envs.alfworld.spec import ALFWORLD
from skill1.envs.make import environment_spec
from skill1.envs.spec import ANY_KIND, EnvironmentSpec, PromptWords
from skill1.envs.webshop.spec import WEBSHOP
from skill1.nano.alfworld.reading import read_request

WORDS = PromptWords("a task", "a task", "what to find", "tasks", ("look",), ("look",))


def test_specs_are_found_by_name_module_and_file(tmp_path: Path) -> None:
    assert environment_spec("alfworld") is ALFWORLD and environment_spec("webshop") is WEBSHOP
    assert environment_spec("skill1.envs.webshop.spec:WEBSHOP") is WEBSHOP
    file = tmp_path / "mine.py"
    file.write_text("from skill1.envs.alfworld.spec import ALFWORLD as MINE\n")
    assert environment_spec(f"{file}:MINE") is ALFWORLD
    with pytest.raises(ConfigError, match="unknown environment 'webshp'; did you mean 'webshop'"):
        environment_spec("webshp")


def test_a_spec_loads_nothing_heavy() -> None:
    code = (
        "import sys; from skill1.envs.make import environment_spec as s; s('alfworld'); s('webshop'); "
        "print({'torch', 'transformers', 'textworld', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_known_splits_and_categories_come_first() -> None:
    assert ALFWORLD.ordered_splits({"other", "valid_unseen", "train"}) == ["train", "valid_unseen", "other"]
    assert ALFWORLD.ordered_categories(["Pick2", "Zoo", "Pick", "Art"]) == ["Pick", "Pick2", "Art", "Zoo"]
    assert WEBSHOP.ordered_categories(["garden", "beauty"]) == ["beauty", "garden"]
    assert ALFWORLD.split_label("valid_seen") == "seen homes" and ALFWORLD.split_label("mine") == "mine"


def test_a_spec_needs_little() -> None:
    spec = EnvironmentSpec("mine", lambda config: None, {"train": "training tasks"}, WORDS)
    assert (spec.task, spec.tasks, spec.benchmark, spec.nano) == ("task", "tasks", None, None)
    assert spec.kinds == (ANY_KIND,) and spec.kind_of("anything") == ANY_KIND


@pytest.mark.parametrize(
    "sentence, kind",
    [
        ("put a mug in shelf.", "pick_and_place"),
        ("Put some cleaner on shelf.", "pick_and_place"),
        ("put two mugs in shelf.", "pick_and_place"),
        ("find two mugs and put them in shelf.", "pick_and_place"),
        ("look at mug under the desklamp.", "look_at_obj_in_light"),
        ("examine the mug with the desklamp.", "look_at_obj_in_light"),
        ("put a clean mug in shelf.", "clean"),
        ("clean some mug and put it in shelf.", "clean"),
        ("put a hot mug in shelf.", "heat"),
        ("heat some mug and put it in shelf.", "heat"),
        ("put a cool mug in shelf.", "cool"),
        ("cool some mug and put it in shelf.", "cool"),
    ],
)
def test_kinds_of_alfworld_sentences(sentence: str, kind: str) -> None:
    assert ALFWORLD.kind_of(sentence) == kind and kind in ALFWORLD.kinds
    of_goal = {"put": "pick_and_place", "two": "pick_and_place", "look": "look_at_obj_in_light"}
    assert of_goal.get(found := read_request(sentence.lower()).kind, found) == kind


def test_a_foreign_sentence_has_no_kind() -> None:
    with pytest.raises(ValueError, match="not a task sentence"):
        ALFWORLD.kind_of("water the tulip.")
