"""Expert demonstrations of the four stages, from which the nano policy learns formats and the *use* of skills. Ours.

Every demonstration world is drawn anew, with habits of its own, so nothing about where things are can be learned from
them except by reading the skill. The expert follows a skill that names the task's object and this home, and ignores
any other; the plain statement is that the warm start teaches the use of skills.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from skill1.config import WarmStartConfig
from skill1.envs.alfworld.engine import Episode
from skill1.envs.alfworld.game import Game
from skill1.envs.base import Observation
from skill1.nano.demonstrator import BLOCK, Demonstration, DemonstratorBase
from skill1.nano.expert import Expert, read_goal, slip
from skill1.nano.prompts.alfworld import CompactPrompts, compact, home, room
from skill1.prompts import ActContext, history_of
from skill1.prompts.base import Exchange


@dataclass(frozen=True, slots=True)
class _Known:
    """A fact some earlier episode could have distilled: object type, place, and the first observation of the home."""

    target: str
    place: str
    start: Observation

    @property
    def skill(self) -> str:
        return CompactPrompts.write_skill(self.target, self.place, self.start)


def observe(episode: Episode) -> Observation:
    """What the vector environment would show of a running episode."""
    admissible = tuple(command for command in episode.admissible if command != "help")
    return Observation(episode.text, admissible, episode.game.instruction)


class Demonstrator(DemonstratorBase[_Known]):
    """Turns games into demonstrations."""

    def __init__(self, config: WarmStartConfig, common: Mapping[str, Collection[str]], seed: int) -> None:
        """`common`: object type -> receptacle types it commonly lies in, lower case."""
        super().__init__(config, CompactPrompts(), seed)
        self._common = common

    def demonstrate(self, game: Game, habitual: str) -> Iterator[Demonstration]:
        """All demonstrations of one game; `habitual` is the entity token where this home keeps the task's object."""
        start = observe(Episode(game))
        goal = read_goal(start.instruction)
        known = _Known(goal.target, habitual, start)
        if self._bank_shown():
            yield from self._with_bank(game, known)
        else:
            yield from self._with_skill(game, known)
        yield from self._first_moves(game, known)
        yield Demonstration("query", "query", self._prompts.query(start), self._prompts.write_query(goal.target))
        for _ in range(self._config.reranks):
            yield from self._rerank(known)
        self._pool.append(known)

    # -- act and distill --------------------------------------------------------------------------------------------

    def _with_skill(self, game: Game, known: _Known) -> Iterator[Demonstration]:
        """An episode with one skill or none; the expert follows a relevant one."""
        shown, relevant = self._draw_shown(known)
        hint = known.place if relevant else None
        yield from self._play(game, shown, Expert(known.start, self._common, hint=hint), known)

    def _with_bank(self, game: Game, known: _Known) -> Iterator[Demonstration]:
        """An episode with a block of principles ("mug in cabinet"); the expert starts where one of its object says."""
        rng, own = self._rng, self._rng.random() < self._config.relevant_share
        kinds = {known.target: known.place.rpartition("_")[0]} if own else {}
        for _ in range(rng.randint(*BLOCK) if self._pool else 0):
            other = rng.choice(self._pool)
            if other.target != known.target:
                kinds[other.target] = other.place.rpartition("_")[0]
        shown = self._block([f"{target} in {kind}" for target, kind in kinds.items()])
        common = {known.target: (kinds[known.target],)} if own else self._common
        yield from self._play(game, shown, Expert(known.start, common), known)

    def _play(self, game: Game, shown: str, expert: Expert, known: _Known) -> Iterator[Demonstration]:
        """An episode with noise; the answers are what the expert would do, also right after a slip."""
        config, rng = self._config, self._rng
        episode = Episode(game)
        start = now = observe(episode)
        trajectory: list[Exchange] = []
        while not episode.won and len(trajectory) < config.max_steps:
            command = expert.act(now)
            context = ActContext(start, shown, len(trajectory), history_of(trajectory, config.history), now)
            row = Demonstration("act", expert.doing, self._prompts.act(context), compact(command))
            if expert.doing == "treat":
                yield from [row] * config.treatment_copies
            elif expert.doing != "search on" or rng.random() < config.search_share:
                yield row
            done = slip(now, start, rng) if rng.random() < config.noise else command
            trajectory.append((now.text, done))
            now = Observation(episode.step(done), (), start.instruction)
            now = Observation(now.text, tuple(c for c in episode.admissible if c != "help"), start.instruction)
            expert.moved(done, now)
        answer = "none"
        if expert.found:
            answer = self._prompts.write_lesson(known.target, expert.found)
        yield Demonstration("distill", "distill", self._prompts.distill(start, episode.won, trajectory, None), answer)
        yield from self._reflections(start, episode.won, trajectory)

    def _first_moves(self, game: Game, known: _Known) -> Iterator[Demonstration]:
        """First decisions in pairs: a skill naming a place drawn at random, once relevant and once foreign.

        The place is independent of the object, so only reading the skill tells the answer; the foreign twin names the
        same place for another object or home, so only checking both tells whether to follow.
        """
        start = known.start
        for _ in range(self._config.first_moves):
            place = self._rng.choice(room(start))
            relevant = _Known(known.target, place, start)
            for skill in (relevant, self._twin(relevant)):
                if skill is None:
                    continue
                hint = skill.place if skill is relevant else None
                command = Expert(start, self._common, hint=hint).act(start)
                prompt = self._prompts.act(ActContext(start, skill.skill, 0, (), start))
                kind = "first move, relevant skill" if hint else "first move, foreign skill"
                yield Demonstration("act", kind, prompt, compact(command))

    def _twin(self, skill: _Known) -> _Known | None:
        """The same place, for another object of this home, for this object in another home, or for neither."""
        if not self._pool:
            return None
        other = self._rng.choice(self._pool)
        target, start = self._rng.choice(
            ((other.target, skill.start), (skill.target, other.start), (other.target, other.start))
        )
        twin = _Known(target, skill.place, start)
        return None if self._relevant(twin, skill) else twin

    # -- select -----------------------------------------------------------------------------------------------------

    def _rerank(self, known: _Known) -> Iterator[Demonstration]:
        """Up to `candidates` skills in random order, so that content decides; the answer names the relevant one.

        The parser leaves the others in order of retrieval, as it does all of them when none is relevant ("1"). A longer
        answer would be mostly tokens that decide nothing.
        """
        rng = self._rng
        if len(self._pool) < 8:
            return
        candidates = [known] if rng.random() < self._config.rerank_relevant else []
        count = rng.randint(2, self._config.candidates)
        while len(candidates) < count:
            foreign = self._foreign(known)
            if foreign is not None:
                candidates.append(foreign)
        rng.shuffle(candidates)
        fits = [self._relevant(candidate, known) for candidate in candidates]
        kind = "rerank, relevant " + ("listed first" if fits[0] else "listed later" if any(fits) else "absent")
        prompt = self._prompts.rerank(known.start, [c.skill for c in candidates])
        yield Demonstration("rerank", kind, prompt, str(fits.index(max(fits)) + 1))

    def _foreign(self, known: _Known) -> _Known | None:
        """A skill of another object of this home, of this object in another home, or of neither."""
        if not self._pool:
            return None
        other = self._rng.choice(self._pool)
        drawn = self._rng.choice(
            (
                _Known(other.target, self._rng.choice(room(known.start)), known.start),
                _Known(known.target, other.place, other.start),
                other,
            )
        )
        return None if self._relevant(drawn, known) else drawn

    @staticmethod
    def _relevant(skill: _Known, known: _Known) -> bool:
        """A skill is relevant when it names the task's object and this home."""
        return (skill.target, home(skill.start)) == (known.target, home(known.start))
