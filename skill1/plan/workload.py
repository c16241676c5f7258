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


@dataclass(frozen=True, slots=True)
class Typical:
    """What the calls of a prompt set look like. Ours."""

    lengths: dict[Stage, Lengths]  # of other stages: those of "distill"
    skill: int  # tokens of each skill in an act prompt but the one that the lengths hold


_TYPICAL = {
    # characters of this kit's templates on generated games (24 rooms, 30 steps) / 3.6, answers of the form that they
    # ask for, and skills of a title, a principle and when it applies, in a sentence each
    "full": Typical(
        {
            "query": Lengths(200, 40),
            "rerank": Lengths(680, 20),
            "act": Lengths(450, 120),
            "distill": Lengths(1150, 150),
        },
        skill=60,
    ),
    # tokens of the nano policy's own calls; skills between "mug in cabinet ;" and a shop's eight words
    "compact": Typical(
        {"query": Lengths(8, 3), "rerank": Lengths(60, 2), "act": Lengths(57, 3), "distill": Lengths(128, 7)}, skill=6
    ),
}


# The same in a conversation, where a call's prompt is what is new in it: tokens of SmolLM2 on ALFWorld's games, an expert
# playing (`skill1 demonstrate --by expert --preset mini`).
_CONVERSATION = Typical(
    {"query": Lengths(270, 20), "rerank": Lengths(115, 5), "act": Lengths(45, 8), "distill": Lengths(60, 55)}, skill=30
)


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the configuration does not say. None = the default that `make_workload` states."""

    turns: float | None = None  # actions per episode, mean
    prompt: int | None = None  # tokens of an act prompt, mean
    completion: int | None = None  # tokens of an act completion, mean
    longest: float = 2.0  # longest completion of a generate call / mean


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of one stage in a step."""

    stage: Stage
    rows: int
    lengths: Lengths
    limit: int  # most completion tokens
    calls: int  # one after the other: an episode's actions are
    longest: int  # tokens that a call generates
    before: int = 0  # tokens of the conversation before a call, on average; 0 where each is a chat of its own

    @property
    def width(self) -> int:
        """Tokens of what is said before, of a typical prompt and of the longest answer."""
        return self.before + self.lengths.prompt + self.limit


@dataclass(frozen=True, slots=True)
class Workload:
    """One training step."""

    episodes: int
    turns: float  # actions per episode
    stages: tuple[Calls, ...]
    shown: int  # most skills in an act prompt
    skill: int  # tokens of each but the first
    longest: tuple[int, int]  # prompt and completion tokens of the longest row that training takes
    sequence: Lengths  # tokens that training takes together: an act row's, or a whole conversation's
    micro_rows: int  # of a micro-batch of them
    chats: bool  # a rollout is one conversation

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

    def updates(self, config: Config, world: int) -> tuple[Update, ...]:
        """Cut these rows, all of them trained, for `world` ranks as training would."""
        shape = self.shape()
        trained = np.ones(len(shape.rows), dtype=bool)
        return plan_updates(
            shape,
            trained,
            trained,
            world=world,
            rows_per_update=config.train.rows_per_update,
            rows_per_micro_batch=config.train.rows_per_micro_batch,
            tokens_per_micro_batch=config.train.tokens_per_micro_batch,
            seed=config.train.seed,
            step=0,
        )

    def shape(self) -> Shape:
        """List the lengths of all rows, stage by stage, or of all conversations."""
        if self.chats:
            lengths, each = np.array([[self.sequence.prompt, self.sequence.completion]]), [self.episodes]
            rows = np.full(self.episodes, round(self.rows / self.episodes))
        else:
            lengths = np.array([(s.lengths.prompt, s.lengths.completion) for s in self.stages])
            each, rows = [s.rows for s in self.stages], np.ones(self.rows)
        prompts, completions = np.repeat(lengths.astype(np.int64), each, axis=0).T
        return Shape(prompts, completions, rows.astype(np.int64))


def make_workload(config: Config, given: Assumptions) -> Workload:
    """Lay out the calls of one step.

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
    method = method_of(config)
    shown, share = method.skills_shown(config)
    chats = rollout.context == "conversation"
    typical = _CONVERSATION if chats else _TYPICAL.get(config.policy.prompts, _TYPICAL["full"])
    usual = typical.lengths["act"]
    act = Lengths(
        usual.prompt + round(share * max(shown - 1, 0) * typical.skill) if given.prompt is None else given.prompt,
        usual.completion if given.completion is None else given.completion,
    )
    lengths = typical.lengths | {"act": act}
    limits = method.trained_stages(config)
    stages: list[Calls] = []
    read = written = 0.0  # tokens of an episode up to the stage
    for stage, limit in limits.items():
        wanted = lengths.get(stage, lengths["distill"])
        if wanted.prompt < 1 or wanted.completion < 1:
            raise ConfigError(f"{stage}: a prompt of {wanted.prompt} and a completion of {wanted.completion} tokens")
        if wanted.prompt > rollout.max_prompt_tokens:
            raise ConfigError(
                f"rollout.max_prompt_tokens={rollout.max_prompt_tokens} is less than a typical {stage} prompt "
                f"({wanted.prompt} tokens): training would stop at it"
            )
        completion = min(wanted.completion, limit)
        rows, calls = (round(rollout.episodes * turns), most) if stage == "act" else (rollout.episodes, 1)
        longest = min(limit, math.ceil(given.longest * completion))
        each = rows / rollout.episodes
        before = round(read + written + (each - 1) / 2 * (wanted.prompt + completion)) if chats else 0
        read, written = read + each * wanted.prompt, written + each * completion
        stages.append(Calls(stage, rows, replace(wanted, completion=completion), limit, calls, longest, before))
    sequence = (
        Lengths(round(read), round(written)) if chats else replace(act, completion=min(act.completion, limits["act"]))
    )
    tokens = sequence.prompt + sequence.completion
    micro_rows = max(1, min(config.train.tokens_per_micro_batch // tokens, config.train.rows_per_micro_batch))
    alone = (rollout.max_prompt_tokens, max(limits.values()))
    return Workload(
        rollout.episodes, turns, tuple(stages), shown, typical.skill, alone, sequence, micro_rows, chats
    )  # fmt: skip


def rows_of_call(config: Config, width: int) -> int:
    """Say how many rows a generate call takes at most whose prompts and answers are `width` tokens wide.

    (The backends but `transformers` take all; what they hold at once is theirs to say.)
    """
    policy = config.policy
    if policy.backend != "transformers":
        return policy.generate_batch
    return max(1, min(policy.generate_batch, policy.cache_tokens // width))
