"""The options of the nano policies' warm start."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skill1.config import STRICT, knob


@dataclass(frozen=True, config=STRICT)
class WarmStartConfig:
    """The supervised start of the nano policies. All ours: the paper starts from an instruction-tuned model.

    In WebShop a game is a goal and a world a shop; what is about receptacles, searching on and treatments is ALFWorld's.
    """

    seed: int = knob(7, "seed of worlds, demonstrations and weights", "ours", ge=0)
    games: int = knob(6000, "generated games, one expert episode each", "ours", gt=0)
    held_out_games: int = knob(200, "games of other worlds for the report at the end", "ours", gt=0)
    games_per_world: int = knob(40, "games drawn before habits and homes are drawn anew", "ours", gt=0)
    receptacles_low: int = knob(10, "receptacles of the smallest homes", "ours", gt=0)
    receptacles_high: int = knob(26, "receptacles of the largest homes", "ours", gt=0)
    max_steps: int = knob(40, "actions per expert episode", "ours", gt=0)
    history: int = knob(2, "past pairs shown", "ours; as environment.history", ge=0)
    noise: float = knob(0.1, "share of steps replaced by a slip", "ours", ge=0, lt=1)
    relevant_share: float = knob(0.45, "episodes with a relevant skill", "ours", ge=0, le=1)
    foreign_share: float = knob(0.3, "episodes with an irrelevant skill", "ours", ge=0, le=1)
    several_share: float = knob(0.0, "of these, shown among one or two irrelevant ones", "ours; RetroAgent", ge=0, le=1)
    bank_share: float = knob(0.0, "episodes with a skill bank's block instead of a skill", "ours; SkillRL", ge=0, le=1)
    first_moves: int = knob(3, "pairs of first decisions per game", "ours", ge=0)
    search_share: float = knob(0.5, "share kept of the rows that only go on searching", "ours", gt=0, le=1)
    treatment_copies: int = knob(3, "copies of rows between taking an object and having treated it", "ours", gt=0)
    reflect_share: float = knob(0.0, "episodes that are also reflected on", "ours; RetroAgent", ge=0, le=1)
    reranks: int = knob(3, "rerank demonstrations per game", "ours", ge=0)
    candidates: int = knob(5, "most candidates of a rerank demonstration", "ours; as library.top_k", ge=2)
    rerank_relevant: float = knob(0.9, "rerank demonstrations with a relevant candidate", "ours", ge=0, le=1)
    width: int = knob(128, "hidden size", "ours", gt=0)
    layers: int = knob(3, "blocks", "ours", gt=0)
    heads: int = knob(4, "attention heads", "ours", gt=0)
    epochs: float = knob(1.0, "passes over the demonstrations", "ours", gt=0)
    learning_rate: float = knob(4e-3, "Muon and AdamW, linear to zero", "ours", gt=0)
    rows_per_step: int = knob(32, "rows", "ours", gt=0)
    prompt_loss: float = knob(0.3, "weight of the prompt tokens' loss", "ours", ge=0)
    prompt_sample: float = knob(0.25, "share of prompt tokens in that loss", "ours", gt=0, le=1)
