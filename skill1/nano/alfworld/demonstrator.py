"""Games of generated homes for the warm start; a skill's topic is an object in a home. Ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from skill1.envs.alfworld.engine import RunningGame
from skill1.envs.alfworld.environment import AlfworldEpisode
from skill1.envs.alfworld.game import Game
from skill1.envs.alfworld.generate import make_games
from skill1.envs.alfworld.homes import facts
from skill1.envs.base import Observation
from skill1.envs.episodes import EpisodeEnvironment
from skill1.nano.alfworld.expert import HomeExpert
from skill1.nano.alfworld.prompts import CompactPrompts
from skill1.nano.alfworld.reading import room, type_of
from skill1.nano.demonstrator import Demonstrator
from skill1.nano.prompts import Fact
from skill1.records import Task

_MIN_POOL = 8  # facts before rankings are asked for


@lru_cache(maxsize=1)
def common_places() -> dict[str, frozenset[str]]:
    """Map object types to the receptacle types that can hold them, lower case, from the installed package."""
    holds = facts().holds
    objects = {kind for kinds in holds.values() for kind in kinds}
    return {o.lower(): frozenset(r.lower() for r, kinds in holds.items() if o in kinds) for o in objects}


class OneGame(EpisodeEnvironment[AlfworldEpisode]):
    """An environment that plays one game, whatever the task."""

    def __init__(self, game: Game, max_steps: int) -> None:
        super().__init__(max_steps)
        self._game = game

    def tasks(self, split: str) -> tuple[Task, ...]:
        return ()

    def begin(self, task: Task) -> AlfworldEpisode:
        return AlfworldEpisode(RunningGame(self._game), self._game.instruction)


class HomeDemonstrator(Demonstrator):
    """Episodes in generated homes, for the warm start."""

    prompts = CompactPrompts()

    def _games(self, seed: int, world: int, count: int) -> Iterator[tuple[OneGame, Task, str]]:
        config = self._config
        sizes = range(config.receptacles_low, config.receptacles_high + 1)
        games = make_games(
            seed, train=count, valid_seen=1, valid_unseen=1, homes=8, unseen_homes=1,
            receptacles=sizes[world % len(sizes)], spares=world % 2,
        )  # fmt: skip
        for made in games:
            if made.split == "train":
                game = OneGame(Game.parse(made.game_dict), config.max_steps)
                yield game, Task("alfworld", made.split, made.id, ""), made.habitual.replace(" ", "_")

    def player(self, start: Observation, told: Fact | None, *, by_principle: bool = False) -> HomeExpert:
        """A skill says where to look first; a principle only in which type of place."""
        if told and by_principle:
            return HomeExpert(start, {told.about: (type_of(told.found),)})
        return HomeExpert(start, common_places(), hint=told.found if told else None)

    def _foreign(self, start: Observation, known: Fact, found: str | None = None) -> Fact | None:
        """Of another object of this home, of this object in another home, or of neither."""
        if not self._pool:
            return None
        other = self._rng.choice(self._pool)
        here = Fact(other.about, found or self._rng.choice(room(start)), known.home)
        drawn = self._rng.choice((here, replace(other, about=known.about), other))
        return None if drawn.topic == known.topic else replace(drawn, found=found or drawn.found)

    def _elsewhere(self, start: Observation, known: Fact) -> Fact | None:
        other = self._rng.choice(self._pool)
        return None if other.about == known.about else other

    def _invented(self, start: Observation) -> str:
        return self._rng.choice(room(start))

    def _candidates(self, start: Observation, known: Fact) -> list[Fact]:
        if len(self._pool) < _MIN_POOL:
            return []
        candidates = [known] if self._rng.random() < self._config.rerank_relevant else []
        count = self._rng.randint(2, self._config.candidates)
        while len(candidates) < count:
            if foreign := self._foreign(start, known):
                candidates.append(foreign)
        return candidates
