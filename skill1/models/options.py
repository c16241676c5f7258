"""The options of an expert's demonstrations."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skill1.config import STRICT, knob


@dataclass(frozen=True, config=STRICT)
class ExpertConfig:
    """What an expert demonstrates."""

    # How often another action is played than the one that is to be learnt.
    slips: float = knob(0.1, "share of the actions", "ours", ge=0, lt=1)
    # How often an action carries a thought; None: always in the window, never in a conversation.
    thoughts: float | None = knob(None, "share of the actions", "ours", ge=0, le=1)
    # How often an episode is shown skills.
    skills: float = knob(0.8, "share of the episodes", "ours", ge=0, le=1)
    # How often one of them is relevant.
    relevant: float = knob(0.75, "share of the episodes with skills", "ours", ge=0, le=1)
    # How often that one is true of the game, whatever it says; else it is another game's and may be.
    true: float = knob(0.75, "share of the relevant skills", "ours", ge=0, le=1)
    # How often one of the others has the object or the kind of task in common with the game.
    near: float = knob(0.5, "share of the other skills", "ours", ge=0, le=1)
    # How often an episode ends before it is won, so that its lesson is that of a failure.
    cut: float = knob(0.15, "share of the episodes", "ours", ge=0, lt=1)
