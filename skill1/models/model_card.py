"""What an exported model says of itself (README.md) and of its skills (SKILLS.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from skill1.analysis.comparison import success_table
from skill1.config import Config, diff, load_config
from skill1.envs.make import environment_spec
from skill1.store.card import markdown_table, write_card
from skill1.store.resources import is_path
from skill1.store.run_directory import RunDirectory

_PACKAGES = ("skill1", "torch", "transformers", "trl", "peft", "accelerate")
_ABOUT = """A policy trained by the Skill1 reproduction kit (arXiv 2605.06130) with GRPO from one task outcome:
step {step} of {steps} of the run `{name}`.

{weights}

{skills}"""
_USE = """```
skill1 evaluate --model THIS_FOLDER --data GAMES --out results/again
```

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
```

The policy expects the prompts of `skill1.prompts` (set `{prompts}`); other text it was not trained on."""


def write_model_card(folder: Path, run: RunDirectory, step: int, *, skills: int | None, merged: bool) -> None:
    """Write the README.md of the export of `step` into `folder`.

    Args:
        skills: how many `library/` holds; None without one.
        merged: the adapter was folded into the weights.
    """
    config = run.config
    adapter = config.policy.lora_rank > 0 and not merged
    header = ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        base_model=None if is_path(config.policy.model) else config.policy.model,
        tags=["skill1", "reinforcement-learning", config.environment.name],
    )
    held = f"`library/` holds the {skills} skills it had then (`SKILLS.md` to read); `--library none` withholds them."
    write_card(
        folder,
        header,
        title=f"Skill1: {config.preset}, {config.variant}, seed {config.train.seed}, step {step}",
        about=_ABOUT.format(
            step=step,
            steps=config.train.steps,
            name=run.name,
            weights=_weights(config, merged),
            skills="It was trained without a skill library." if skills is None else held,
        ),
        results=_results(run, step),
        training=_training(run),
        use=_USE.format(prompts=config.policy.prompts),
    )


def skills_page(skills: Sequence[Mapping[str, Any]]) -> str:
    """Format skills as a page to read; `skills`: see `methods.base.Method.skill_table`."""
    table = markdown_table(skills[0], [skill.values() for skill in skills]) if skills else ""
    return f"# {len(skills)} skills\n\n{table}\n"


def _weights(config: Config, merged: bool) -> str:
    policy = config.policy
    if not policy.lora_rank:
        return f"Full weights, in the precision they were trained in; training began from `{policy.model}`."
    if merged:
        return f"Full weights: `{policy.model}` with the LoRA adapter (rank {policy.lora_rank}) merged in."
    return (
        f"A LoRA adapter (rank {policy.lora_rank}) of `{policy.model}`, which loading it needs too (`skill1 export "
        "--merge` writes whole weights)."
    )


def _results(run: RunDirectory, step: int) -> str:
    """Tabulate the run's stored evaluations of this step, and of the untrained policy (step 0) beside them."""
    stored = run.evaluations("evaluation_*")
    arms = {
        f"step {at}, library {library}": frame
        for (at, library), frame in stored[stored["step"].isin((0, step))].groupby(["step", "library"])
    }
    validation = run.evaluations("validation")
    validation = validation[validation["step"] == step]
    if not validation.empty:
        arms[f"step {step}, validation within training"] = validation
    if not any(f"step {step}," in arm for arm in arms):
        return f"Step {step} was **not evaluated** within its run (`skill1 evaluate --name NAME --step {step}`)."
    how, words = run.config.evaluation, environment_spec(run.config.environment.name)
    table = success_table(arms, words)
    about = (
        f"Success as the environment says it (`won`), in percent; n = {words.tasks} x passes episodes; 95 % intervals "
        f"by bootstrap over {words.tasks} and by Wilson; seed is training's. Sampling temperature "
        f"{how.temperature:g}, evaluation seed {how.seed}, at most {run.config.environment.max_steps} actions."
    )
    return f"{about}\n\n{markdown_table(table.columns, table.itertuples(index=False))}"


def _training(run: RunDirectory) -> str:
    """Tabulate what the run was made from and with."""
    manifest = run.manifest()
    session = manifest["sessions"][-1]
    git = session.get("git")
    code = f"{git['commit']}{' with changes' if git['dirty'] else ''}" if git else "not from a git checkout"
    versions = [f"{name} {session['packages'][name]}" for name in _PACKAGES if name in session["packages"]]
    facts = [
        ("preset, variant, seed", f"{manifest['preset']}, {manifest['variant']}, {manifest['seed']}"),
        ("training data, SHA-256", manifest["data_hash"]),
        ("code", code),
        ("versions", ", ".join([f"Python {session['python']}", *versions])),
        ("machine", ", ".join([session["platform"], f"{session['cpus']} CPUs", *session["devices"]])),
    ]
    paper = load_config("paper", run.config.variant)
    changed = diff(paper, run.config)  # the data has a hash above, and its place says nothing elsewhere
    changes = [(f"`{name}`", *values) for name, values in changed.items() if name != "environment.data"]
    return (
        f"{markdown_table(('', 'last session of the run'), facts)}\n\nWhat the configuration changes of the paper's "
        f"values (all of it: `skill1/config.json`):\n\n{markdown_table(('field', 'paper', 'here'), changes)}"
    )
