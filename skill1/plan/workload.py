"""One training step's policy calls: how many rows of which lengths, from the configuration and stated assumptions.

The paper publishes neither turns per episode nor lengths; the assumptions here are ours and every one can be set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from skill1.batching import Shape, Update, plan_updates
from skill1.config import Config, ConfigError, method_of
from skill1.records import Stage


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens of a stage's prompt and completion."""

    prompt: int
    completion: int


# ours. full: characters of this kit's templates on generated games (24 rooms, 30 steps) / 3.6, and answers of the form
# that the templates ask for. compact: tokens of the nano policy's own calls.
_LENGTHS: dict[str, dict[Stage, Lengths]] = {
    "full": {
        "query": Lengths(200, 40),
        "rerank": Lengths(680, 20),
        "act": Lengths(450, 120),
        "distill": Lengths(1150, 150),
    },
    "compact": {
        "query": Lengths(8, 8),
        "rerank": Lengths(60, 6),
        "act": Lengths(57, 5),
        "distill": Lengths(128, 14),
    },
}

# ours, tokens of each skill or bank entry in an act prompt beside the one that the lengths above hold. full: a title, a
# principle and when it applies, in a sentence each. compact: between "mug in cabinet ;" and a shop's eight words.
_ENTRY = {"full": 60, "compact": 6}


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the configuration does not say. None = the default that `Workload` states."""

    turns: float | None = None  # actions per episode, mean
    prompt: int | None = None  # tokens of an act prompt, mean
    completion: int | None = None  # tokens of an act completion, mean
    longest: float = 2.0  # longest completion of a generate call / mean


@dataclass(frozen=True, slots=True)
class Stages:
    """The calls of one stage in a step."""

    stage: Stage
    rows: int
    lengths: Lengths
    limit: int  # most completion tokens
    calls: int  # one after the other: an episode's actions are
    longest: int  # tokens that a call generates


@dataclass(frozen=True, slots=True)
class Workload:
    """One training step."""

    episodes: int
    turns: float  # actions per episode
    stages: tuple[Stages, ...]
    shown: int  # most skills or bank entries in an act prompt
    entry: int  # tokens of each but the first

    @property
    def rows(self) -> int:
        return sum(s.rows for s in self.stages)

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens of all rows."""
        return sum(s.rows * (s.lengths.prompt + s.lengths.completion) for s in self.stages)

    @property
    def completion_tokens(self) -> int:
        return sum(s.rows * s.lengths.completion for s in self.stages)

    @property
    def act(self) -> Stages:
        return next(s for s in self.stages if s.stage == "act")

    def updates(self, config: Config, world: int) -> tuple[Update, ...]:
        """How training would cut these rows, all of them trained, for `world` ranks."""
        repeats = [s.rows for s in self.stages]
        prompts = np.repeat([s.lengths.prompt for s in self.stages], repeats)
        completions = np.repeat([s.lengths.completion for s in self.stages], repeats)
        train = config.train
        return plan_updates(
            Shape(prompts.astype(np.int64), completions.astype(np.int64)),
            np.ones(self.rows, dtype=bool),
            world=world,
            rows_per_update=train.rows_per_update,
            rows_per_micro_batch=train.rows_per_micro_batch,
            tokens_per_micro_batch=train.tokens_per_micro_batch,
            seed=train.seed,
            step=0,
        )


def make_workload(config: Config, given: Assumptions) -> Workload:
    """The calls of one step.

    By default an episode takes .6 of the step limit's actions, and some episode of a step takes them all; an act prompt
    holds as many skills as it may (`Method.skills_shown`), in the share of the episodes that may hold any.

    Raises:
        ConfigError: an assumption that the configuration rules out.
    """
    rollout, most = config.rollout, config.environment.max_steps
    turns = 0.6 * most if given.turns is None else given.turns
    if not 0 < turns <= most:
        raise ConfigError(f"turns = {turns:g}: an episode takes more than 0 and at most environment.max_steps={most}")
    if given.longest < 1:
        raise ConfigError(f"longest = {given.longest:g}: the longest completion is at least the mean one")
    lengths = dict(_LENGTHS[config.policy.prompts])
    method, entry = method_of(config), _ENTRY[config.policy.prompts]
    shown, share = method.skills_shown(config)
    more = round(share * max(shown - 1, 0) * entry)
    act = lengths["act"].prompt + more if given.prompt is None else given.prompt
    lengths["act"] = replace(lengths["act"], prompt=act)
    if given.completion is not None:
        lengths["act"] = replace(lengths["act"], completion=given.completion)
    limits = method.trained_stages(config)
    episodes = rollout.episodes
    rows = {stage: round(episodes * turns) if stage == "act" else episodes for stage in limits}
    stages = []
    for stage in limits:
        wanted = lengths.get(stage, lengths["distill"])
        if wanted.prompt < 1 or wanted.completion < 1:
            raise ConfigError(f"{stage}: a prompt of {wanted.prompt} and a completion of {wanted.completion} tokens")
        if wanted.prompt > rollout.max_prompt_tokens:
            raise ConfigError(
                f"rollout.max_prompt_tokens={rollout.max_prompt_tokens} is less than a typical {stage} prompt "
                f"({wanted.prompt} tokens): training would stop at it"
            )
        completion = min(wanted.completion, limits[stage])
        longest = min(limits[stage], math.ceil(given.longest * completion))
        calls = most if stage == "act" else 1
        kept = replace(wanted, completion=completion)
        stages.append(Stages(stage, rows[stage], kept, limits[stage], calls, longest))
    return Workload(episodes, turns, tuple(stages), shown, entry)
