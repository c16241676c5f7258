"""Expert demonstrations of the four stages in WebShop, from which its nano policy learns formats and the use of skills.

Ours. Every few dozen goals the shop is drawn anew, so no brand can be learned by heart: what product a wish is about
can only be read off the skill. The expert follows a skill whose words are those of the task and ignores any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from skill1.config import WarmStartConfig
from skill1.envs.base import Observation
from skill1.envs.webshop.catalogue import read_products
from skill1.envs.webshop.engine import Shop
from skill1.envs.webshop.environment import WebshopEnvironment
from skill1.envs.webshop.generate import SMALL, SYLLABLES, make_products
from skill1.envs.webshop.store import build_catalogue
from skill1.nano.demonstrator import BLOCK, Demonstration, DemonstratorBase
from skill1.nano.prompts.shop_reading import brand, read_wish
from skill1.nano.prompts.webshop import CompactShopPrompts
from skill1.nano.shop_expert import ShopExpert, slip
from skill1.prompts import ActContext, history_of
from skill1.prompts.base import Exchange
from skill1.records import Task


@dataclass(frozen=True, slots=True)
class BrandFact:
    """Which brand is right for which wish, as an episode could have distilled it; both as tokens."""

    wish: tuple[str, ...]
    brand: str

    @property
    def skill(self) -> str:
        return CompactShopPrompts.write_skill(self.wish, self.brand)

    def is_about(self, other: BrandFact) -> bool:
        return self.wish == other.wish


def shop_demonstrations(config: WarmStartConfig) -> Iterator[Demonstration]:
    """Demonstrations of `config.games` goals about different products, from ever new shops."""
    demonstrator = ShopDemonstrator(config, config.seed)
    done = world = 0
    while done < config.games:
        # seeds of the warm start never meet those of the shops that are played
        shop = _make_shop(config.seed * 1_000_003 + world)
        environment = WebshopEnvironment(shop, config.max_steps, "text_rich", held_out=1)
        for task in _different(environment, min(config.games_per_world, config.games - done)):
            yield from demonstrator.demonstrate(environment, task)
            done += 1
        world += 1


def _make_shop(seed: int) -> Shop:
    made = list(make_products(seed, SMALL))
    attributes = {product.record["asin"]: product.attributes for product in made}
    return Shop(build_catalogue(read_products((p.record for p in made), attributes, {}, f"shop {seed}")), seed=seed)


def _different(environment: WebshopEnvironment, count: int) -> list[Task]:
    """The first `count` goals of different products, or all there are."""
    tasks, seen = [], set()
    owners = environment.shop.goals.products
    for task in environment.tasks("train"):
        owner = int(owners[int(task.game.partition("/")[2])])
        if owner not in seen and len(tasks) < count:
            seen.add(owner)
            tasks.append(task)
    return tasks


class ShopDemonstrator(DemonstratorBase[BrandFact]):
    """Turns goals into demonstrations."""

    def __init__(self, config: WarmStartConfig, seed: int) -> None:
        super().__init__(config, CompactShopPrompts(), seed)

    def demonstrate(self, environment: WebshopEnvironment, task: Task) -> Iterator[Demonstration]:
        """All demonstrations of one goal."""
        start = environment.reset([task])[0]
        goal = environment.goal(task)
        known = BrandFact(read_wish(start.instruction).terms, brand(goal.name))
        shown, relevant = self._draw_block(known) if self._bank_shown() else self._draw_shown(known)
        expert = ShopExpert(start, known.brand if relevant else None)
        yield from self._play(environment, start, shown, expert, known)
        yield from self._first_moves(start, known)
        yield Demonstration("query", "query", self._prompts.query(start), self._prompts.write_query(known.wish))
        for _ in range(self._config.reranks):
            yield from self._rerank(start, known)
        self._pool.append(known)

    # -- act and distill --------------------------------------------------------------------------------------------

    def _draw_block(self, known: BrandFact) -> tuple[str, bool]:
        """A bank's block of principles ("mens shirts : berden"), at most one for a wish; and whether one is `known`."""
        own = self._rng.random() < self._config.relevant_share
        about = {known.wish: known} if own else {}
        for _ in range(self._rng.randint(*BLOCK)):
            if (other := self._foreign(known)) is not None:
                about[other.wish] = other
        return self._block([each.skill for each in about.values()]), own

    def _play(
        self, environment: WebshopEnvironment, start: Observation, shown: str, expert: ShopExpert, known: BrandFact
    ) -> Iterator[Demonstration]:
        """An episode with noise; the answers are what the expert would do, also right after a slip."""
        config, rng = self._config, self._rng
        trajectory: list[Exchange] = []
        now, won, done = start, False, False
        while not done:
            answer = expert.act(now)
            context = ActContext(start, shown, len(trajectory), history_of(trajectory, config.history), now)
            yield Demonstration("act", expert.doing, self._prompts.act(context), answer)
            given = slip(now, rng) if rng.random() < config.noise else answer
            command = self._prompts.parse_action(given, now.admissible).value
            trajectory.append((now.text, command))
            step = environment.step([command])[0]
            now, won, done = step.observation, step.won, step.done
            if not done:
                expert.moved(given, now)
        answer = self._prompts.write_lesson(known.wish, expert.opened) if expert.opened else "none"
        yield Demonstration("distill", "distill", self._prompts.distill(start, won, trajectory, None), answer)
        yield from self._reflections(start, won, trajectory)

    def _first_moves(self, start: Observation, known: BrandFact) -> Iterator[Demonstration]:
        """First decisions in pairs: a skill naming a brand drawn at random, once about this wish, once about another.

        The brand is independent of the wish, so only reading the skill tells the answer; the foreign twin names the
        same brand, so only comparing the words tells whether to follow.
        """
        for _ in range(self._config.first_moves):
            drawn = brand("".join(self._rng.choices(SYLLABLES, k=self._rng.choice((2, 2, 3)))))
            relevant = BrandFact(known.wish, drawn)
            other = self._foreign(known)
            for skill in (relevant, BrandFact(other.wish, drawn) if other else None):
                if skill is None:
                    continue
                answer = ShopExpert(start, drawn if skill is relevant else None).act(start)
                prompt = self._prompts.act(ActContext(start, skill.skill, 0, (), start))
                kind = "first move, relevant skill" if skill is relevant else "first move, foreign skill"
                yield Demonstration("act", kind, prompt, answer)

    # -- select -----------------------------------------------------------------------------------------------------

    def _rerank(self, start: Observation, known: BrandFact) -> Iterator[Demonstration]:
        """Up to `candidates` skills in random order, so that content decides; the answer names the relevant one.

        The parser leaves the others in order of retrieval, as it does all of them when none is relevant ("1").
        """
        rng = self._rng
        count = rng.randint(2, self._config.candidates)
        candidates = [known] if rng.random() < self._config.rerank_relevant else []
        while len(candidates) < count:
            foreign = self._foreign(known)
            if foreign is None:
                return
            candidates.append(foreign)
        rng.shuffle(candidates)
        fits = [candidate.is_about(known) for candidate in candidates]
        kind = "rerank, relevant " + ("listed first" if fits[0] else "listed later" if any(fits) else "absent")
        prompt = self._prompts.rerank(start, [candidate.skill for candidate in candidates])
        yield Demonstration("rerank", kind, prompt, str(fits.index(max(fits)) + 1))

    def _foreign(self, known: BrandFact) -> BrandFact | None:
        """A skill about another wish, half of the time one that shares a word with it; None while there is none."""
        others = [other for other in self._pool if not other.is_about(known)]
        akin = [other for other in others if set(other.wish) & set(known.wish)]
        if not others:
            return None
        return self._rng.choice(akin if akin and self._rng.random() < 0.5 else others)
