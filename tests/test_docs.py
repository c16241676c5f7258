"""The documents name only what exists: functions, files, commands, other documents."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name

import pytest

from skill1.analysis.trajectories.cases import find_cases
from skill1.store.run_directory import RunDirectory

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
WANTED = (
    "method.md",
    "architecture.md",
    "extending.md",
    "reproducing.md",
    "findings.md",
    "study.md",
    "environments.md",
)


def test_every_document_is_there() -> None:
    assert {*WANTED} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_and_file_exists(page: Path) -> None:
    text = page.read_text()
    groups = {group for group in entry_points().groups if group.startswith("skill1.")}
    for name in set(re.findall(r"`(skill1(?:\.\w+)+)`", text)) - groups:
        resolve_name(name)
    for file in re.findall(r"`((?:skill1|tests|benchmarks|examples|notebooks|docs|data|results)/[\w/.-]+)`", text):
        assert (ROOT / file).exists() or file.startswith(("results/", "data/")), file
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (page.parent / link).exists(), link


def test_every_equation_of_the_paper_has_its_function() -> None:
    text = (ROOT / "docs" / "method.md").read_text()
    for number in (3, 4, 5, 6, 7, 9, 10, 11, 12, 13):
        row = next(line for line in text.splitlines() if re.search(rf"\| Skill1 Eq\. {number}\b", line))
        assert re.search(r"`skill1\.[\w.]+`", row), row


@pytest.mark.parametrize("file", sorted((ROOT / "skill1").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_source_refers_to_a_document_that_is_not_there(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"[Mm]ethod section|\(design: |architecture: \"", text), "name the paper's equation or section"
    for page in re.findall(r"\b([\w/-]+\.md)\b(?!\.)", text):
        known = {p.name for p in PAGES} | {"LOG.md", "SKILLS.md", "DATACARD.md", "SKILL.md", "skill.md"}
        assert Path(page).name in known, page


def test_the_episode_in_the_readme_is_the_one_that_its_rule_chooses() -> None:
    run = RunDirectory.open(ROOT / "results" / "reference" / "mini" / "full-seed0")
    [case] = [case for case in find_cases(run) if case.kind == "relied on"]
    [shown] = [r for r in run.read_rollouts(case.step) if (r.group, r.index) == (case.group, case.shown)]
    text = (ROOT / "README.md").read_text()
    assert f'*"{shown.instruction}"*, step {case.step} of a training run' in text
    assert f"U {case.skill.utility:.2f}, n {case.skill.count})".replace("0.", ".") in text
    answers = {stage: [turn.text for turn in shown.turns_of(stage)] for stage in ("query", "rerank", "act", "distill")}
    for said in (*answers["query"], *answers["rerank"], " > ".join(answers["act"]) + ": won", case.skill.strategy):
        assert said in text
    assert " ".join(answers["distill"][0].split()) in text
