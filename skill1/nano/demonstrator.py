"""Expert demonstrations of the four stages, from which a nano policy learns formats and the *use* of skills. Ours.

Worlds are drawn again every few dozen games, so that nothing about where things are, or which brand is right, can be
learned from them except by reading the skill. The expert follows a skill with the task's topic and ignores any other.
Also taught, where asked for: skills that name a wrong place, raw trajectories in the place of lessons, skills among
others, a skill bank's block (SkillRL), reflections (RetroAgent).
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from skill1.envs.base import Observation, VectorEnvironment
from skill1.nano.options import WarmStartConfig
from skill1.nano.prompts import CompactBase, Fact
from skill1.prompts import ActContext, history_of
from skill1.prompts.base import Exchange
from skill1.records import Stage, Task

_POOL = 512  # recent facts from which foreign skills are drawn
_OTHERS = (1, 2)  # foreign skills beside one
_BLOCK = (2, 6)  # foreign principles of a bank's block
_LONGEST_RAW = 16  # actions of a raw trajectory that is shown as a skill
_MOST_RAW = 4  # raw trajectories that are ranked at once


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One prompt with the answer to learn."""

    stage: Stage
    kind: str  # what it teaches, for the report on held-out demonstrations
    prompt: str
    answer: str


class Player(Protocol):
    """A scripted player of one episode, in the policy's words."""

    doing: str  # what the last answer was for
    found: str | None  # what the episode teaches, as `Fact.found`

    def act(self, now: Observation) -> str: ...  # the next answer
    def moved(self, answer: str, now: Observation) -> None: ...  # what was really answered, and what was seen then
    def slip(self, now: Observation, rng: random.Random) -> str: ...  # a noisy answer


class Demonstrator(ABC):
    """Turns games into demonstrations. Keeps a pool of earlier games' facts, from which foreign skills are drawn."""

    prompts: ClassVar[CompactBase]

    def __init__(self, config: WarmStartConfig) -> None:
        self._config = config
        self._rng = random.Random(config.seed)
        self._pool: deque[Fact] = deque(maxlen=_POOL)
        self._raw: deque[tuple[Fact, str]] = deque(maxlen=_POOL)  # of won episodes, and their actions as a skill

    # -- what differs between environments --------------------------------------------------------------------------

    @abstractmethod
    def _games(self, seed: int, world: int, count: int) -> Iterator[tuple[VectorEnvironment, Task, str]]:
        """At most `count` games of a world, the `world`-th, that is drawn from `seed`; with each what is right in it."""

    @abstractmethod
    def player(self, start: Observation, told: Fact | None, *, by_principle: bool = False) -> Player:
        """The expert, which follows what it is told, by a skill or by a bank's principle."""

    @abstractmethod
    def _foreign(self, start: Observation, known: Fact, found: str | None = None) -> Fact | None:
        """A fact of another topic than `known`, which says `found` where this is given.

        None while there is none, or if the one drawn has the same topic.
        """

    @abstractmethod
    def _elsewhere(self, start: Observation, known: Fact) -> Fact | None:
        """A fact for a bank's block, about something else; None as in `_foreign`."""

    @abstractmethod
    def _invented(self, start: Observation) -> str:
        """A place or brand drawn at random, whether or not it is right."""

    @abstractmethod
    def _candidates(self, start: Observation, known: Fact) -> list[Fact]:
        """What a ranking is asked of, in any order, `known` most often among it; empty while the pool is too small."""

    # -- what does not ----------------------------------------------------------------------------------------------

    def demonstrations(self) -> Iterator[Demonstration]:
        """Yield the demonstrations of `config.games` games, from newly drawn worlds."""
        config, done, world = self._config, 0, 0
        while done < config.games:
            count = min(config.games_per_world, config.games - done)
            # seeds of the warm start never meet those of the worlds that are played
            for game in self._games(config.seed * 1_000_003 + world, world, count):
                yield from self.demonstrate(*game)
                done += 1
            world += 1

    def demonstrate(self, environment: VectorEnvironment, task: Task, right: str) -> Iterator[Demonstration]:
        """Yield all demonstrations of one game; `right`: the place or brand that a skill of its topic names."""
        [start] = environment.reset([task])
        known = self.prompts.fact(start, right)
        if self._chosen(self._config.raw_episode_share):
            shown, told = self._draw_raw(environment, start, known)
            [start] = environment.reset([task])
            player = self.player(start, told)
        else:
            block = self._chosen(self._config.bank_share)
            shown, told = (self._draw_block if block else self._draw_shown)(start, known)
            player = self.player(start, told, by_principle=block)
        yield from self._play(environment, start, shown, player)
        yield from self._first_moves(start, known)
        yield Demonstration("query", "query", self.prompts.query(start), self.prompts.write_query(known))
        for _ in range(self._config.reranks):
            yield from self._rerank(start, known)
        self._pool.append(known)

    def _chosen(self, share: float) -> bool:
        """Whether this episode is of a share; a share of zero draws nothing, so that it changes nothing."""
        return bool(share) and self._rng.random() < share

    # -- what an episode is shown -----------------------------------------------------------------------------------

    def _draw_shown(self, start: Observation, known: Fact) -> tuple[str, Fact | None]:
        """An episode's skill, if any, alone or among others; and what it tells, if it is about the task."""
        u, relevant = self._rng.random(), self._config.relevant_share
        fact: Fact | None = self._rival(start, known) if self._chosen(self._config.wrong_share) else known
        if u >= relevant:
            fact = self._foreign(start, known) if u < relevant + self._config.foreign_share else None
        if fact is None:
            return "", None
        texts = [self.prompts.write_skill(fact)]
        if self._chosen(self._config.several_share):
            drawn = [self._foreign(start, known) for _ in range(self._rng.randint(*_OTHERS) if self._pool else 0)]
            texts += [self.prompts.write_skill(other) for other in drawn if other]
            self._rng.shuffle(texts)  # so that only reading tells which counts
        return self.prompts.skill_block(texts), fact if u < relevant else None

    def _rival(self, start: Observation, known: Fact) -> Fact:
        """What another episode could have taught about the same, right or not."""
        return replace(known, found=self._invented(start))

    def _draw_raw(self, environment: VectorEnvironment, start: Observation, known: Fact) -> tuple[str, Fact | None]:
        """A raw trajectory, as it is kept without distillation: of an earlier game about something else, or of this one.

        This one is played for it, with or without being told; as with skills, some say another place than is right.
        """
        config = self._config
        foreign = [raw for fact, raw in self._raw if fact.topic != known.topic]
        if foreign and self._rng.random() * (config.relevant_share + config.foreign_share) >= config.relevant_share:
            return self._rng.choice(foreign), None
        player = self.player(start, known if self._rng.random() < config.relevant_share else None)
        _, trajectory, won = self._episode(environment, start, "", player)
        if not won or not player.found or len(trajectory) > _LONGEST_RAW:
            return "", None
        told, text = self.prompts.fact(start, player.found), self.prompts.raw_lesson(start, trajectory).strategy
        self._raw.append((told, text))
        if not self._chosen(config.wrong_share):
            return text, told
        rival = self._rival(start, told)
        names = {told.found: rival.found, rival.found: told.found}
        return " ".join(names.get(word, word) for word in text.split()), rival

    def _draw_block(self, start: Observation, known: Fact) -> tuple[str, Fact | None]:
        """A bank's block of principles, at most one for a thing; and `known` where one is of it."""
        own = self._rng.random() < self._config.relevant_share
        shown = {known.about: known} if own else {}
        for _ in range(self._rng.randint(*_BLOCK) if self._pool else 0):
            if other := self._elsewhere(start, known):
                shown[other.about] = other
        texts = [self.prompts.write_principle(fact) for fact in shown.values()]
        self._rng.shuffle(texts)
        return self.prompts.skill_block(texts), known if own else None

    # -- act and distill --------------------------------------------------------------------------------------------

    def _episode(
        self, environment: VectorEnvironment, start: Observation, shown: str, player: Player
    ) -> tuple[list[Demonstration], list[Exchange], bool]:
        """An episode with noise; the answers are what the expert would do, also right after a slip.

        Returns:
            the rows to learn from, what happened, and whether it was won.
        """
        config, rng, prompts = self._config, self._rng, self.prompts
        rows: list[Demonstration] = []
        trajectory: list[Exchange] = []
        now, won, done = start, False, False
        while not done:
            answer = player.act(now)
            context = ActContext(start, shown, len(trajectory), history_of(trajectory, config.history), now)
            row = Demonstration("act", player.doing, prompts.act(context), answer)
            if player.doing == "treat":
                rows += [row] * config.treatment_copies
            elif player.doing != "search on" or rng.random() < config.search_share:
                rows.append(row)
            given = player.slip(now, rng) if rng.random() < config.noise else answer
            command = prompts.parse_action(given, now.admissible).value
            trajectory.append((now.text, command))
            [step] = environment.step([command])
            assert step is not None  # an action was given
            now, won, done = step.observation, step.won, step.done
            player.moved(given, now)
        return rows, trajectory, won

    def _play(
        self, environment: VectorEnvironment, start: Observation, shown: str, player: Player
    ) -> Iterator[Demonstration]:
        """An episode, and what is asked after it."""
        prompts = self.prompts
        rows, trajectory, won = self._episode(environment, start, shown, player)
        yield from rows
        lesson = prompts.write_lesson(prompts.fact(start, player.found)) if player.found else "none"
        yield Demonstration("distill", "distill", prompts.distill(start, won, trajectory, None), lesson)
        yield from self._reflections(start, won, trajectory)
        if won and player.found and len(trajectory) <= _LONGEST_RAW:
            yield from self._raw_skills(start, prompts.fact(start, player.found), trajectory)

    def _first_moves(self, start: Observation, known: Fact) -> Iterator[Demonstration]:
        """First decisions in pairs: a skill naming a place or brand drawn at random, once relevant and once foreign.

        What is named is independent of the task, so only reading the skill tells the answer; the foreign twin names
        the same, so only comparing topics tells whether to follow.
        """
        for _ in range(self._config.first_moves):
            relevant = self._rival(start, known)
            twin = self._foreign(start, relevant, relevant.found)
            yield self._first_move(start, "relevant skill", self.prompts.write_skill(relevant), relevant)
            if twin:
                yield self._first_move(start, "foreign skill", self.prompts.write_skill(twin), None)

    def _first_move(self, start: Observation, kind: str, shown: str, told: Fact | None) -> Demonstration:
        prompt = self.prompts.act(ActContext(start, shown, 0, (), start))
        return Demonstration("act", f"first move, {kind}", prompt, self.player(start, told).act(start))

    def _raw_skills(self, start: Observation, own: Fact, trajectory: list[Exchange]) -> Iterator[Demonstration]:
        """What an episode did in the place of its lesson (no distillation): shown before its own game, and ranked."""
        if not self._chosen(self._config.raw_share):
            return
        text = self.prompts.raw_lesson(start, trajectory).strategy
        others = [raw for fact, raw in self._raw if fact.topic != own.topic]
        yield self._first_move(start, "relevant raw trajectory", text, own)
        if others:
            yield self._first_move(start, "foreign raw trajectory", self._rng.choice(others), None)
            listed = [text, *self._rng.sample(others, min(len(others), self._rng.randint(1, _MOST_RAW - 1)))]
            self._rng.shuffle(listed)
            answer = str(listed.index(text) + 1)
            yield Demonstration("rerank", "rerank, raw trajectories", self.prompts.rerank(start, listed), answer)
        self._raw.append((own, text))

    def _reflections(self, start: Observation, won: bool, trajectory: list[Exchange]) -> Iterator[Demonstration]:
        """The episode and its beginning, which is lost, each with the outcome told and with the outcome to be judged.

        Half of those that are told show the other beside, if its outcome is the opposite.
        """
        if not self._chosen(self._config.reflect_share):
            return
        cut = trajectory[: self._rng.randrange(len(trajectory))]
        for part, outcome, other in ((trajectory, won, cut), (cut, False, trajectory if won else [])):
            if not part:
                continue
            answer = self.prompts.write_reflection(start, outcome, part)
            shown = other if won and other and self._rng.random() < 0.5 else None
            told = self.prompts.reflect(start, outcome, part, shown)
            yield Demonstration("distill", "reflect, told", told, answer)
            judged = self.prompts.reflect(start, None, part, None)
            yield Demonstration("distill", "reflect, judged", judged, answer)

    # -- select -----------------------------------------------------------------------------------------------------

    def _rerank(self, start: Observation, known: Fact) -> Iterator[Demonstration]:
        """Candidates in random order, so that content decides; the answer names the first that is relevant.

        The parser leaves the others in order of retrieval, as it does all of them when none is relevant ("1"). A longer
        answer would be mostly tokens that decide nothing.
        """
        candidates = self._candidates(start, known)
        if not candidates:
            return
        if known in candidates:
            room = self._config.candidates - len(candidates)
            rivals = self._rng.randint(0, room) if self._chosen(self._config.rival_share) else 0
            candidates += [self._rival(start, known) for _ in range(rivals)]
        self._rng.shuffle(candidates)
        fits = [candidate.topic == known.topic for candidate in candidates]
        kind = "rerank, relevant " + ("listed first" if fits[0] else "listed later" if any(fits) else "absent")
        prompt = self.prompts.rerank(start, [self.prompts.write_skill(candidate) for candidate in candidates])
        yield Demonstration("rerank", kind, prompt, str(fits.index(max(fits)) + 1))
