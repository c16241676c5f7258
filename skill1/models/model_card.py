"""What an exported model says of itself: model card and a page of its skills (Markdown)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from huggingface_hub import ModelCardData

from skill1.analysis.comparison import success_table
from skill1.config import Config, diff, load_config
from skill1.envs.make import environment_spec
from skill1.store.resources import is_path
from skill1.store.run_directory import RunDirectory

_PACKAGES = ("skill1", "torch", "transformers", "trl", "peft", "accelerate")
_CARD = """---
{header}
---

# {title}

A policy trained by the Skill1 reproduction kit (arXiv 2605.06130) with GRPO to pick a skill from a library, act with it
and distil new skills, all from one task outcome: step {step} of {steps} of the run `{name}`.

{weights}

{library}

## Results

{results}

## Training

{training}

What the configuration changes of the paper's values (all of it: `skill1/config.json`):

{changes}

## Use

```
skill1 evaluate --model THIS_FOLDER --data GAMES --out results/again{flags}
```

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
```

The policy expects the prompts of `skill1.prompts` (set `{prompts}`); other text it was not trained on.
"""


def model_card(run: RunDirectory, step: int, *, skills: int | None, merged: bool) -> str:
    """The README.md of the export of `step`; `skills` is the size of its library, None without one."""
    config = run.config
    if skills is None:
        library = "It was trained without a skill library."
    else:
        library = f"`library/` holds the {skills} skills it had then (`SKILLS.md` to read)."
    return _CARD.format(
        header=_header(config, adapter=config.policy.lora_rank > 0 and not merged),
        title=f"Skill1: {config.preset}, {config.variant}, seed {config.train.seed}, step {step}",
        step=step,
        steps=config.train.steps,
        name=run.name,
        weights=_weights(config, merged),
        library=library,
        results=_results(run, step),
        training=_training(run),
        changes=_changes(config),
        flags="" if skills is None else "    # with its library; --library none withholds it",
        prompts=config.policy.prompts,
    )


def skills_page(skills: Sequence[Mapping[str, Any]]) -> str:
    """Write skills as a page to read; `skills`: see `methods.base.Method.skill_table`."""
    if not skills:
        return "# 0 skills\n"
    return f"# {len(skills)} skills\n\n{_table(skills[0], [skill.values() for skill in skills])}\n"


def _header(config: Config, *, adapter: bool) -> str:
    """YAML of the card; a base model is named if it is a hub id."""
    hub = not is_path(config.policy.model)
    return ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        base_model=config.policy.model if hub else None,
        tags=["skill1", "reinforcement-learning", config.environment.name],
    ).to_yaml()


def _weights(config: Config, merged: bool) -> str:
    if not config.policy.lora_rank:
        return f"Full weights, in the precision they were trained in; training began from `{config.policy.model}`."
    if merged:
        return (
            f"Full weights: `{config.policy.model}` with the LoRA adapter (rank {config.policy.lora_rank}) merged in."
        )
    return (
        f"A LoRA adapter (rank {config.policy.lora_rank}) of `{config.policy.model}`, which loading it needs too "
        "(`skill1 export --merge` writes whole weights)."
    )


def _results(run: RunDirectory, step: int) -> str:
    """The run's stored evaluations of this step, and of the untrained policy beside them."""
    stored = run.evaluations("evaluation_*")
    arms = {
        f"{'before training' if at == 0 else f'step {at}'}, {_skills(at, library)}": frame
        for (at, library), frame in stored[stored["step"].isin((0, step))].groupby(["step", "library"])
    }
    validation = run.evaluations("validation")
    validation = validation[validation["step"] == step]
    if not validation.empty:
        arms[f"step {step}, validation within training"] = validation
    if not any(f"step {step}," in arm for arm in arms):
        return f"Step {step} was **not evaluated** within its run (`skill1 evaluate --name NAME --step {step}`)."
    table = success_table(arms, environment_spec(run.config.environment.name))
    how, words = run.config.evaluation, environment_spec(run.config.environment.name)
    about = (
        f"Success as the environment says it (`won`), in percent; n = {words.tasks} x passes episodes; 95 % intervals by "
        f"bootstrap over {words.tasks} and by Wilson; seed is training's. Sampling temperature {how.temperature:g}, evaluation seed "
        f"{how.seed}, at most {run.config.environment.max_steps} actions."
    )
    return f"{about}\n\n{_table(table.columns, table.itertuples(index=False))}"


def _skills(step: int, library: str) -> str:
    if library == "none":
        return "no library"
    return "empty library" if library == "step0" else f"library of {library.replace('step', 'step ')}"


def _training(run: RunDirectory) -> str:
    manifest = run.manifest()
    session = manifest["sessions"][-1]
    git = session.get("git")
    code = f"{git['commit']}{' with changes' if git['dirty'] else ''}" if git else "not from a git checkout"
    versions = [f"{name} {session['packages'][name]}" for name in _PACKAGES if name in session["packages"]]
    rows = [
        ("preset, variant, seed", f"{manifest['preset']}, {manifest['variant']}, {manifest['seed']}"),
        ("training data, SHA-256", manifest["data_hash"]),
        ("code", code),
        ("versions", ", ".join([f"Python {session['python']}", *versions])),
        ("machine", ", ".join([session["platform"], f"{session['cpus']} CPUs", *session["devices"]])),
    ]
    return _table(("", "last session of the run"), rows)


def _changes(config: Config) -> str:
    """What the run changes of the paper's settings; its data has a hash above, and its place says nothing elsewhere."""
    changed = diff(load_config("paper", config.variant), config)
    return _table(
        ("field", "paper", "here"),
        [(f"`{name}`", *both) for name, both in changed.items() if name != "environment.data"],
    )


def _table(columns: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    columns = list(columns)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("\\", "\\\\").replace("|", "\\|").split())
