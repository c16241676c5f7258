"""The first bank: the untrained policy plays training tasks, a teacher writes down what can be learnt from them.

Differs from the paper in: a teacher is shown episodes, not memories that three calls each have made of them (`asking`);
any teacher can be asked, also the policy itself; a call without a usable answer is repeated once and its section left
empty after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skill1.config import Config, method_of
from skill1.envs.make import make_environment
from skill1.methods.skillrl.asking import Call, first_inputs
from skill1.methods.skillrl.bank import BankError, Mistake, Principle, SkillBank, read_taught
from skill1.methods.skillrl.evolution import Episode, episode_of
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.methods.skillrl.teacher import Teacher, TeacherError, make_teacher
from skill1.models.demonstrate import training_jobs
from skill1.play import load_policy, play
from skill1.rollout import Stages
from skill1.store.atomic import replace_file
from skill1.store.writable import check_writable

_TRIES = 2


@dataclass(frozen=True, slots=True)
class Written:
    """What the teacher wrote."""

    bank: SkillBank
    refused: int  # entries without their texts, or with a title that is there
    failures: tuple[str, ...]  # of calls that had no usable answer, also when asked again


def write_bank(config: Config, out: Path, tasks: int, passes: int, *, progress: bool = False) -> Written:
    """Play, ask, and write the bank file `out`.

    Args:
        tasks: number of training tasks, drawn with the run's seed.
        passes: episodes of each.

    Raises:
        BankError: `out` exists, or not one call had a usable answer. Otherwise as `SkillRL.check_start`, `load_policy`
            and `make_teacher`.
    """
    if out.exists():
        raise BankError(f"{out} exists: choose another file")
    check_writable(out.parent)
    method_of(config).check_start(config)
    environment = make_environment(config.environment)
    todo = training_jobs(config, environment, tasks, passes)
    policy, options = load_policy(config), SkillRLConfig.of(config)
    teacher = make_teacher(options, policy, (config.train.seed,), out.parent / f"{out.stem}-replies")
    rollouts = play(todo, policy, environment, Stages(), config, progress=progress)
    episodes = [episode_of(rollout, config.environment.name) for rollout in rollouts]
    about = {
        "source": f"skill1 bank, teacher {options.teacher}",
        "episodes": len(episodes),
        "won": sum(episode.won for episode in episodes),
    }
    written = ask_for_bank(teacher, config.environment.name, episodes, about)
    if not len(written.bank):
        raise BankError(f"the teacher wrote nothing that can be used ({'; '.join(written.failures) or 'no entries'})")
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, written.bank.to_text().encode())
    return written


def ask_for_bank(teacher: Teacher, environment: str, episodes: Sequence[Episode], about: dict[str, Any]) -> Written:
    """Ask for general principles, those of every category that was played, and mistakes if an episode was lost."""
    played = sorted({episode.category for episode in episodes})
    calls: list[tuple[Call, str | None]] = [("general", None), *(("category", name) for name in played)]
    if not all(episode.won for episode in episodes):
        calls.append(("mistakes", None))
    principles: list[Principle] = []
    mistakes: list[Mistake] = []
    failures, refused, titles = [], 0, set()
    for call, category in calls:
        inputs = first_inputs(call, environment, episodes, category)
        for _ in range(_TRIES):
            try:
                answer = teacher.write(call, inputs)
                break
            except TeacherError as error:
                last = error
        else:
            failures.append(f"{category or call}: {last}")
            continue
        kept = 0
        for entry in answer:
            identity = f"{_prefix(call, category)}_{kept + 1:03d}"
            made: Principle | Mistake | None
            if call == "mistakes":
                made = read_taught(Mistake, entry, identity)
            else:
                made = read_taught(Principle, entry, identity, category=category)
            if made is None or made.title.casefold() in titles:
                refused += 1
                continue
            titles.add(made.title.casefold())
            kept += 1
            if isinstance(made, Mistake):
                mistakes.append(made)
            else:
                principles.append(made)
    bank = SkillBank(mistakes=tuple(mistakes), extra={"metadata": about}).add(principles)
    return Written(bank, refused, tuple(failures))


def _prefix(call: Call, category: str | None) -> str:
    """As in the published files: gen, err, or the category's first letters."""
    return category[:3] if category is not None else {"general": "gen", "mistakes": "err"}[call]
