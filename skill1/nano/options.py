"""The options of the nano policies' warm start."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from skill1.config import STRICT, knob
from skill1.envs.alfworld.homes import MIN_RECEPTACLES


@dataclass(frozen=True, config=STRICT)
class WarmStartConfig:
    """The supervised start of the nano policies. All ours: the paper starts from an instruction-tuned model.

    In WebShop a game is a goal and a world a shop; what is about receptacles, searching on and treatments is ALFWorld's.
    """

    # Names the worlds, the demonstrations and the weights.
    seed: int = knob(7, "seed", "ours", ge=0)
    # How many games the expert plays, one episode each.
    games: int = knob(7000, "generated games", "ours", gt=0)
    # How many games of other worlds the report at the end is about.
    held_out_games: int = knob(200, "generated games", "ours", gt=0)
    # How many games a world has before the next one is drawn.
    games_per_world: int = knob(40, "generated games", "ours", gt=0)
    # Size of the smallest homes.
    receptacles_low: int = knob(10, "receptacles", "ours", ge=MIN_RECEPTACLES)
    # Size of the largest homes.
    receptacles_high: int = knob(26, "receptacles", "ours", ge=MIN_RECEPTACLES)
    # An expert's episode is cut after so many actions.
    max_steps: int = knob(40, "actions", "ours", gt=0)
    # How many past pairs of observation and action an act prompt shows.
    history: int = knob(2, "pairs", "ours; as environment.history", ge=0)
    # How often a slip is played instead of the expert's answer.
    noise: float = knob(0.1, "share of steps", "ours", ge=0, lt=1)
    # How often the skill shown is about the task.
    relevant_share: float = knob(0.45, "share of episodes", "ours", ge=0, le=1)
    # How often the skill shown is about another task.
    foreign_share: float = knob(0.3, "share of episodes", "ours", ge=0, le=1)
    # How often a skill about the task names a place or brand drawn at random: it is followed, and found wrong.
    wrong_share: float = knob(0.2, "share of relevant skills", "ours", ge=0, le=1)
    # How often what a won episode did is shown as a skill, as it is kept without distillation.
    raw_share: float = knob(0.6, "share of episodes", "ours", ge=0, le=1)
    # How often a whole episode is played with such a raw trajectory before it, relevant or not as with skills.
    raw_episode_share: float = knob(0.0, "share of episodes", "ours", ge=0, le=1)
    # How often a skill is shown among one or two about other tasks.
    several_share: float = knob(0.3, "share of episodes with a skill", "ours; RetroAgent", ge=0, le=1)
    # How often a skill bank's block is shown instead of a skill.
    bank_share: float = knob(0.15, "share of episodes", "ours; SkillRL", ge=0, le=1)
    # How many pairs of first decisions a game adds.
    first_moves: int = knob(3, "pairs per game", "ours", ge=0)
    # How many of the rows are kept that only continue a search.
    search_share: float = knob(0.5, "share of rows", "ours", gt=0, le=1)
    # How often a row is repeated between taking an object and having treated it.
    treatment_copies: int = knob(3, "copies", "ours", gt=0)
    # How often an episode is also reflected on.
    reflect_share: float = knob(0.4, "share of episodes", "ours; RetroAgent", ge=0, le=1)
    # How many rankings a game adds.
    reranks: int = knob(3, "rankings per game", "ours", ge=0)
    # How many skills a ranking lists at most.
    candidates: int = knob(5, "candidates", "ours; as library.top_k", ge=2)
    # How often one of them is about the task.
    rerank_relevant: float = knob(0.9, "share of rankings", "ours", ge=0, le=1)
    # How often others are about the task too: the first of them is named, so that the order of retrieval decides.
    rival_share: float = knob(0.5, "share of these rankings", "ours", ge=0, le=1)
    # Size of the model's states.
    width: int = knob(128, "hidden size", "ours", gt=0)
    # Depth of the model.
    layers: int = knob(3, "blocks", "ours", gt=0)
    # Attention heads of a block.
    heads: int = knob(4, "heads", "ours", gt=0)
    # How often every demonstration is learnt from.
    epochs: float = knob(1.0, "passes", "ours", gt=0)
    # Highest rate of Muon and AdamW, which falls linearly to zero.
    learning_rate: float = knob(4e-3, "learning rate", "ours", gt=0)
    # How many demonstrations an optimizer step averages over.
    rows_per_step: int = knob(32, "rows", "ours", gt=0)
    # How much the prompts' tokens count beside the answers'.
    prompt_loss: float = knob(0.3, "weight", "ours", ge=0)
    # How many of the prompts' tokens count.
    prompt_sample: float = knob(0.25, "share of prompt tokens", "ours", gt=0, le=1)

    def __post_init__(self) -> None:
        if self.receptacles_low > self.receptacles_high:
            raise ValueError("warm_start.receptacles_low must not be above warm_start.receptacles_high")
        if self.width % (2 * self.heads):
            raise ValueError("warm_start.width must be a multiple of twice warm_start.heads")
