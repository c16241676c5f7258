"""The records that flow task -> rollout -> rows -> update. Frozen; every analysis is a projection of them.

Token ids are int32 arrays and log-probs float32 arrays: a paper-scale step holds millions of tokens, and Python
integers would cost ten times the memory. Records that hold arrays compare by identity (`eq=False`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Stage = str  # of a policy call: one of STAGES, or one that a method adds
STAGES: tuple[Stage, ...] = ("query", "rerank", "act", "distill")


@dataclass(frozen=True, slots=True)
class Task:
    """One problem of an environment. A group is `group_size` rollouts of one Task, never a position in a batch."""

    environment: str  # name of its environment
    split: str  # of the environment's data, e.g. "train", "valid_seen"
    game: str  # id within the split's data, e.g. "valid_seen/<task>/<trial>", "synthetic/00000017"
    category: str  # reported category, e.g. "Pick2", "fashion"
    seed: int = 0  # for environments that draw; a restart of a Task is bit-exact


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One policy call: what it read since the call before it, and what it wrote.

    In the context "window" every call is a fresh single-turn chat. In "conversation" the calls of a rollout are one chat: a
    call that `continues` has read all turns before it, and `prompt_ids` are what came after them.
    """

    stage: Stage
    prompt_ids: np.ndarray  # (P,) int32
    completion_ids: np.ndarray  # (C,) int32, ends with the end token unless cut by the length limit
    logprobs: np.ndarray  # (C,) float32, of the sampled tokens at the sampling temperature
    text: str  # decoded completion without special tokens
    value: str  # what the parser took from it: the query, "2,1,3", the action, the distilled lesson
    well_formed: bool  # the parser found what it asked for
    admissible: bool = True  # act only: the action was in the environment's list
    observation: str = ""  # what the policy was shown: the environment's text before this call
    continues: bool = False  # the text continues the turn before


@dataclass(frozen=True, slots=True)
class Candidate:
    """A retrieved skill as it was *when retrieved* (utilities move within the step)."""

    skill: str  # Skill.id
    utility: float
    similarity: float  # cosine(query, desc)
    score: float  # what retrieval ranked by


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the distill stage wrote: a skill that is not yet in the library."""

    desc: str
    strategy: str


@dataclass(frozen=True, slots=True)
class Skill:
    """A skill as the library keeps it."""

    id: str
    desc: str  # retrieval key
    strategy: str  # what the policy reads
    task: str  # instruction of the task it came from
    utility: float  # U in [0, 1]
    count: int  # n >= 1
    admitted: int  # training step
    last_used: int  # training step
    outcome: str  # of the episode it came from: "success" or "failure"
    trajectory: str = ""  # optional


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One episode with all its policy calls: the log from which every figure is made."""

    task: Task
    instruction: str  # the task's sentence
    group: int  # index of the task within the step
    index: int  # rollout within the group, 0..group_size-1
    query: str
    turns: tuple[Turn, ...]
    candidates: tuple[Candidate, ...]  # retrieval order, best first
    ranking: tuple[int, ...]  # positions in `candidates`, best first
    ranking_parsed: bool  # False: the ranking text had no valid id (retrieval order was used)
    selected: str | None  # Skill.id, None when nothing was retrieved
    skill: str  # text of the skill block shown in the act prompts, "" without a skill
    skill_similarity: float  # cosine(instruction, selected desc); nan without a skill
    outcome: float  # r: 1.0 if the environment says won, else 0.0
    score: float  # the environment's graded reward; equals outcome where nothing is graded
    steps: int
    lesson: Lesson | None  # parsed distillation, None if it failed or the stage is off
    cut: bool = False  # lost because its conversation reached `rollout.max_prompt_tokens`
    extra: Any = None  # what only one method stores, in its own frozen dataclass (`methods.base.Method.Extra`)

    def turns_of(self, stage: Stage) -> tuple[Turn, ...]:
        return tuple(t for t in self.turns if t.stage == stage)

    @property
    def invalid_actions(self) -> int:
        """Number of ill-formed actions (the paper's "invalid"; admissibility is counted apart)."""
        return sum(not t.well_formed for t in self.turns if t.stage == "act")

    @property
    def inadmissible_actions(self) -> int:
        return sum(not t.admissible for t in self.turns if t.stage == "act")


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One policy call as the trainer sees it. `advantage` enters the clipped surrogate times `weight`.

    Rows that continue one another stand together and are one sequence, of which the trainer reads every token once.
    """

    prompt_ids: (
        np.ndarray
    )  # (P,) int32, what was read since the row it continues; may hold answers that are not trained
    completion_ids: np.ndarray  # (C,) int32
    logprobs: np.ndarray  # (C,) float32 sampling log-probs
    stage: Stage
    advantage: float
    weight: float  # >= 0, folds stage means and lambdas (Skill1 Eq. 11)
    group: int
    rollout: int  # index of the rollout within the step
    turn: int  # index of the turn within the rollout
    continues: bool = False  # the text continues the row before
    earlier: bool = False  # sampled in an earlier step: its ratio is against `logprobs`

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)
