"""Parts of a study that were run apart, as one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from synthetic_study import make, write

from skill1.analysis import ablations
from skill1.analysis.study import load
from skill1.cli.main import cli
from skill1.errors import RunError
from skill1.running.merge import merge_collected

RUNS = {"full": [0, 1], "no_library": [0, 1], "gigpo": [0]}


def part(folder: Path, runs: dict[str, list[int]], missing: dict[str, list[int]] | None = None) -> Path:
    return write(make(runs, missing=missing or {}, path=folder), folder)


def test_parts_are_the_study_that_was_run_in_one(tmp_path):
    whole = load(part(tmp_path / "whole", RUNS, {"gigpo": [1]}))
    first = part(tmp_path / "first", {"full": [0, 1], "gigpo": [0]}, {"no_library": [0, 1], "gigpo": [1]})
    second = part(tmp_path / "second", {"no_library": [0, 1], "full": [1]})  # one run is in both
    done = CliRunner().invoke(cli, ["collect", str(first), str(second), "--into", str(tmp_path / "merged")])
    assert done.exit_code == 0, done.output
    merged = load(tmp_path / "merged")
    assert merged.missing == {"gigpo": [1]}
    assert [(run["variant"], run["seed"]) for run in merged.manifest["runs"]] == [
        ("full", 0), ("full", 1), ("gigpo", 0), ("no_library", 0), ("no_library", 1)
    ]  # fmt: skip
    keys = ["variant", "seed", "step", "library", "split", "game", "pass"]
    for name in ("evaluations", "metrics"):
        there, here = (getattr(study, name) for study in (whole, merged))
        order = keys if name == "evaluations" else keys[:3]
        pd.testing.assert_frame_equal(
            there.sort_values(order, ignore_index=True), here.sort_values(order, ignore_index=True), check_like=True
        )
    pd.testing.assert_frame_equal(ablations.effect_table(whole), ablations.effect_table(merged))
    again = merge_collected([tmp_path / "merged", first], tmp_path / "again")
    assert [file.read_bytes() for file in again[:2]] == [
        (tmp_path / "merged" / file.name).read_bytes() for file in again[:2]
    ]


def test_machines_are_those_of_the_parts(tmp_path):
    folders = [part(tmp_path / name, {variant: [0]}) for name, variant in (("a", "full"), ("b", "gigpo"))]
    for folder, machines in zip(folders, ([{"cpus": 2}], [{"cpus": 8}, {"cpus": 2}]), strict=True):
        manifest = json.loads((folder / "manifest.json").read_text())
        sessions = [{"from_step": 0, "machine": number} for number in range(len(machines))]
        manifest |= {"machines": machines, "runs": [manifest["runs"][0] | {"sessions": sessions}]}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    merge_collected(folders, tmp_path / "merged")
    merged = load(tmp_path / "merged").manifest
    used = [[merged["machines"][s["machine"]]["cpus"] for s in run["sessions"]] for run in merged["runs"]]
    assert used == [[2], [8, 2]] and len(merged["machines"]) == 2


def test_what_is_no_part_of_the_study_is_refused(tmp_path):
    first, other = part(tmp_path / "a", {"full": [0]}), make({"full": [0], "gigpo": [0]}, path=tmp_path / "b")
    second = write(replace(other, evaluations=other.evaluations.assign(won=~other.evaluations["won"])), other.path)
    with pytest.raises(RunError, match=r"full seed 0 has other outcomes in .*/b than in .*/a: they are two runs"):
        merge_collected([first, second], tmp_path / "merged")
    manifest = json.loads((second / "manifest.json").read_text())
    (second / "manifest.json").write_text(json.dumps(manifest | {"passes": 7}))
    with pytest.raises(RunError, match=r"/b is no part of the study .*/a: they differ in passes"):
        merge_collected([first, second], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    refused = CliRunner().invoke(cli, ["collect", str(first), str(second)])
    assert refused.exit_code == 2 and "name it with --into" in refused.output
