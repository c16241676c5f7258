"""How far a run is and how long it will take."""

from __future__ import annotations

from skill1.running.experiment import Experiment
from skill1.running.progress import Progress, training_progress


def test_what_is_known_of_what_is_done_stands_beside_it():
    done = 0
    progress = Progress("steps", 3, lambda: done, note=lambda: "reward 0.41" if done else "")
    assert str(progress) == "0 of 3 steps"
    done = 2
    assert progress.look() and str(progress).startswith("2 of 3 steps, reward 0.41, ")


def test_remaining_time_is_counted_at_the_rate_since_processes_started():
    seconds, steps = 0.0, 20
    progress = Progress("steps", 60, lambda: steps, skip=1, clock=lambda: seconds)
    assert str(progress) == "20 of 60 steps"  # where an interrupted one resumes
    seconds, steps = 40.0, 21  # processes were started
    assert progress.look() and str(progress) == "21 of 60 steps"
    seconds, steps = 60.0, 25
    assert progress.look() and str(progress) == "25 of 60 steps, 02:55 left"  # 35 at 5 s
    seconds = 62.0
    assert not progress.look() and str(progress) == "25 of 60 steps, 02:55 left"


def test_a_run_is_followed_by_what_it_has_logged(tmp_path):
    progress = training_progress(tmp_path, 4)
    assert str(progress) == "0 of 4 steps"
    lines = '{"step": 1, "reward": 0.5}\n{"step": 2, "reward": 0.25, "library/size": 7.0}\n{"step": 3, "rew'  # being written
    (tmp_path / "metrics.jsonl").write_text(lines)
    assert progress.look() and str(progress) == "2 of 4 steps, reward 0.25, 7 skills"


def test_what_comes_after_is_counted_in_the_time_of_all():
    seconds, steps = 0.0, 0
    progress = Progress("steps", 10, lambda: steps, then=lambda: 90.0, clock=lambda: seconds)
    assert str(progress) == "0 of 10 steps"
    seconds, steps = 12.0, 4
    assert progress.look() and str(progress) == "4 of 10 steps, 00:18 left (01:48 in all)"


def test_what_comes_after_starts_as_slowly_as_this_did():
    seconds, steps = 0.0, 0
    progress = Progress("steps", 10, lambda: steps, skip=1, then=lambda: 90.0, clock=lambda: seconds)
    for seconds, steps in ((20.0, 1), (25.0, 2)):  # 15 s until processes were there, and 5 s a step
        assert progress.look()
    assert str(progress) == "2 of 10 steps, 00:40 left (02:25 in all)"


def test_an_evaluation_is_as_long_as_its_episodes_in_training(world, nano, tmp_path):
    """6 games of each split x 2 passes x 3 arms (before, with its library, withheld), at 30 s for 12 episodes."""
    experiment = Experiment(
        home=str(tmp_path), preset="nano", variant="full", seed=0, data=str(world), passes=2,
        splits=("valid_seen", "valid_unseen"),
        overrides={"policy.model": str(nano), "train.steps": 3, "rollout.tasks_per_step": 3, "rollout.group_size": 4},
    )  # fmt: skip
    progress = experiment.phases()["train"]()
    assert progress.then() == 0
    experiment.run.mkdir()
    (experiment.run / "metrics.jsonl").write_text('{"step": 1, "reward": 0.5, "time/rollout": 30.0}\n')
    assert progress.then() == 12 * 2 * 3 / 12 * 30.0
