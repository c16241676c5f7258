"""A folder of templates of one's own: what it replaces, and what is said of its mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_prompts import AT_SHELF, PAIRS, START, TASK

from skill1.config import ConfigError, load_config
from skill1.prompts import ActContext, make_prompts
from skill1.prompts.base import Context
from skill1.prompts.templates import template_names

LATER = ActContext(START, "", 2, tuple(PAIRS), AT_SHELF)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "words"
    place.mkdir()
    return place


def test_each_context_has_its_templates() -> None:
    assert template_names("window") == ["act", "distill", "query", "rerank", "skill", "system"]
    assert template_names("conversation") == ["act", "distill", "opening", "query", "rerank", "skill", "system"]


@pytest.mark.parametrize("context", ["window", "conversation"])
def test_a_folder_replaces_what_it_has(folder: Path, context: Context) -> None:
    (folder / "query.jinja").write_text(
        "{# mine #}\nTo {{ task }}\n{% if hint %}\n{{ hint }}\n{% endif %}\nwhich skill?\n"
    )
    own, built_in = make_prompts(str(folder), "alfworld", context), make_prompts("full", "alfworld", context)
    assert own.query(START) == f"To {TASK}\nwhich skill?"
    assert own.act(LATER) == built_in.act(LATER) and own.opening(START) == built_in.opening(START)


def test_a_template_builds_on_a_built_in_one_and_on_parts(folder: Path) -> None:
    (folder / "act.jinja").write_text('{% set list_admissible = true %}{% include "conversation/act.jinja" %}')
    (folder / "_end.jinja").write_text("It was {{ won }}.")
    (folder / "distill.jinja").write_text('{% include "_end.jinja" %}')
    own = make_prompts(str(folder), "alfworld", "conversation")
    assert own.act(LATER) == f"{AT_SHELF.text}\nAdmissible actions: {', '.join(AT_SHELF.admissible)}"
    assert own.distill(START, True, PAIRS, None) == "It was True."


@pytest.mark.parametrize(
    "files, message",
    [
        ({}, "has no template for rollout.context=window: it may have act.jinja, distill.jinja, query.jinja, rerank"),
        ({"opening": "Hi"}, "has no template for rollout.context=window"),
        ({"act": "Go.", "ack": "Go."}, "unknown template of .*'ack'; did you mean 'act'"),
        ({"act": "Go.\n{% if steps %}"}, r"act.jinja:2: Unexpected end of template"),
        (
            {"act": "{{ obs }}"},
            r"act.jinja: there is no variable 'obs' .known: actions, admissible, episode, hint, history,",
        ),
        ({"act": "{% if steps > 9 %}{{ obs }}{% endif %}"}, "act.jinja: there is no variable 'obs'"),
        ({"skill": "{{ task }}"}, "skill.jinja: there is no variable 'task'"),
        ({"system": "{{ task }}"}, "system.jinja: there is no variable 'task'"),
        ({"distill": "\n\n{{ trajectory.length }}"}, "distill.jinja:3: UndefinedError: 'list object' has no attribute"),
        (
            {"act": "\n{% if steps %}{{ steps + observation }}{% endif %}"},
            "act.jinja:2: TypeError: unsupported operand",
        ),
        ({"query": "{% include '_no.jinja' %}"}, "query.jinja:1: TemplateNotFound: .*_no.jinja"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(folder: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.jinja").write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        make_prompts(str(folder), "alfworld")
    assert "\n" not in str(error.value) and re.search(r"words", str(error.value))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="policy.prompts: there is no folder '.*/none'"):
        make_prompts(f"{tmp_path}/none", "alfworld")


def test_a_folder_is_kept_by_its_whole_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert load_config("small", overrides={"policy.prompts": "./words"}).policy.prompts == str(folder)
    assert load_config("small", overrides={"policy.prompts": "full"}).policy.prompts == "full"
