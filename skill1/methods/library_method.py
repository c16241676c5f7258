"""What methods with a skill library have in common: rank 0 learns, journals and broadcasts; checkpoints hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from skill1.config import Config, LibraryConfig
from skill1.credit import mean
from skill1.encoder import HashEncoder, load_encoder
from skill1.library import SkillLibrary, replay, won
from skill1.methods.base import Method, Source
from skill1.records import Rollout, Skill
from skill1.store.journal import Journal, LibraryEvent
from skill1.store.skill_file import as_skills
from skill1.store.skill_source import is_written, read_written

JOURNAL = "journal.jsonl"


class LibraryMethod(Method):
    """What methods with a skill library have in common: rank 0 learns, journals and broadcasts; checkpoints hold it."""

    uses_library: ClassVar[bool] = True
    keeps_skills: ClassVar[bool] = True

    def __init__(self, config: Config, folder: Path | None = None) -> None:
        super().__init__(config, folder)
        self._settings = LibraryConfig.of(config)
        self._encoder = load_encoder(self._settings.encoder)
        self.skills: SkillLibrary = SkillLibrary(self._settings, self._encoder)
        self._journal = None if folder is None else Journal(folder / JOURNAL)

    @classmethod
    def admits(cls, rollout: Rollout) -> bool:
        """Tell whose lessons are kept: those of a success."""
        return won(rollout)

    @classmethod
    def check_start(cls, config: Config) -> None:
        """See `Method.check_start`. Raises LibraryError for malformed skills to start with."""
        settings = LibraryConfig.of(config)
        if settings.start is not None:
            read_written(Path(settings.start).expanduser())

    @classmethod
    def starts_with_skills(cls, config: Config) -> bool:
        """See `Method.starts_with_skills`."""
        return LibraryConfig.of(config).start is not None

    def start(self) -> None:
        """See `Method.start`; the skills that the run begins with are its first event."""
        if self._journal is not None and (self._journal.sequence or self._journal.torn):
            self._journal.truncate(0)
        if self._settings.start is not None:
            event = self._take(Path(self._settings.start).expanduser())
            if self._journal is not None:
                self._journal.append(event)

    def _take(self, place: Path) -> LibraryEvent:
        """Admit the skills of a file or folder, before the first step."""
        skills = as_skills(read_written(place), self._settings.initial_utility)
        event = LibraryEvent(1, step=0, updates=(), admitted=skills, merged=(), retired=())
        self.skills.apply(event)
        return event

    def learn(self, rollouts: Sequence[Rollout], step: int, source: Source) -> LibraryEvent | None:
        """Update utilities, admit and retire (`SkillLibrary.learn`), from training episodes."""
        if source != "train":
            return None
        event = self.skills.learn(rollouts, step, self.admits)
        if self._journal is not None:
            self._journal.append(event)
        return event

    def apply(self, event: LibraryEvent) -> None:
        """See `Method.apply`."""
        self.skills.apply(event)

    def state(self, event: LibraryEvent) -> dict[str, float]:
        """Size of the library and what the step changed."""
        return {
            "library/size": float(len(self.skills)),
            "library/admitted": float(len(event.admitted)),
            "library/merged": float(len(event.merged)),
            "library/retired": float(len(event.retired)),
            "library/mean_utility": mean(skill.utility for skill in self.skills),
        }

    def save(self, folder: Path) -> None:
        """See `Method.save`."""
        self.skills.save(folder / "library")

    def load(self, folder: Path) -> None:
        """See `Method.load`."""
        self.load_skills(folder / "library")
        if self._journal is not None:
            self._journal.truncate(self.skills.sequence)

    def load_skills(self, folder: Path) -> None:
        """See `Method.load_skills`; skills that somebody wrote may stand in its place (`skill_source.read_written`)."""
        if is_written(folder):
            self._take(folder)
        else:
            self.skills = SkillLibrary.load(folder, self._settings, self._encoder)

    def load_initial(self, folder: Path) -> None:
        """See `Method.load_initial`."""
        if self._settings.start is not None:
            replay(Journal(folder / JOURNAL), self.skills, before=1)

    def skill_table(self) -> list[dict[str, Any]]:
        """See `Method.skill_table`: U is the utility (Eq. 5), n its observations; steps are training's."""
        return [
            {
                "id": s.id, "U": f"{s.utility:.3f}", "n": s.count, "admitted": s.admitted, "last used": s.last_used,
                "when it helps": s.desc, "strategy": s.strategy, "from the task": s.task,
            }
            for s in sorted(self.skills, key=lambda s: (-s.utility, s.id))
        ]  # fmt: skip

    @classmethod
    def skills_before(cls, config: Config, folder: Path, step: int) -> Mapping[str, Skill]:
        """See `Method.skills_before`: the journal's events of earlier steps, again."""
        records = SkillLibrary(LibraryConfig.of(config), HashEncoder(dimension=1))  # no embedding is looked at
        library = replay(Journal(folder / JOURNAL), records, before=step)
        return {skill.id: skill for skill in library}
