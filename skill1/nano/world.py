"""What the nano policies' world has to know of an environment, and the generated games that the nano presets play.

An environment names its `NanoWorld` in `EnvironmentSpec.nano`; nothing else here names an environment.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from skill1.config import load_config
from skill1.envs.make import environment_spec
from skill1.envs.spec import EnvironmentSpec
from skill1.errors import RunError
from skill1.methods.skillrl.evolution import Episode
from skill1.nano.demonstrator import Demonstrator
from skill1.nano.options import WarmStartConfig
from skill1.nano.prompts import CompactBase, Fact
from skill1.presets import presets
from skill1.prompts import Context, PromptSet, window_only
from skill1.records import Rollout, Task
from skill1.registry import ConfigError, find

# arm of the probe -> what it shows in one episode (here `Fact`s), the first of which is looked for; None for nothing
Draw = dict[str, Any]
# (the environment, train tasks, tasks, passes, rng) -> tasks probed, draws by pass
DrawArms = Callable[[Any, Sequence[Task], Sequence[Task], int, random.Random], tuple[list[Task], list[Draw]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoWorld:
    """One environment, small enough to train in from scratch."""

    folder: str  # of generated games: data/<folder>-<seed>
    generate: Callable[..., Any]  # writes them: (folder, seed=..., **sizes) -> a report that names the folder `out`
    sizes: Mapping[str, Any]  # the generator's parameters besides the seed
    prompts: Callable[[], CompactBase]
    demonstrator: Callable[[WarmStartConfig], Demonstrator]
    draw_arms: DrawArms
    right: Callable[[Any, Sequence[Task]], list[str | None]]  # (the environment, tasks) -> strategy that helps in each
    followed: Callable[[Fact, Rollout], bool]  # whether an episode's first move is the one that the fact is about
    principles: Callable[[Sequence[Episode]], Counter[str]]  # what episodes teach a skill bank -> how often
    mistakes: Callable[[Sequence[Episode]], Counter[str]]  # what they teach it not to do -> how often
    title: str  # of a policy's card
    places: str  # where demonstrations play, as the card names them: "shops"
    about: str  # what a policy does with a skill, and what it does not know
    use: str  # what a policy is good for
    knows_published_games: bool = False  # its vocabulary has the words of the environment's own games too


def nano_of(environment: str) -> NanoWorld:
    """Find the nano world of an environment. Raises ConfigError for an environment that is unknown or has none."""
    return _nano_of(environment_spec(environment))


def _nano_of(spec: EnvironmentSpec) -> NanoWorld:
    if spec.nano is None:
        raise ConfigError(f"the environment {spec.name} has no nano world: name one in its EnvironmentSpec.nano")
    return find("nano worlds", spec.nano)


def compact_prompts(spec: EnvironmentSpec, context: Context) -> CompactBase:
    """Build the prompt set `compact`. Raises ConfigError for an environment without a nano world, or a conversation."""
    window_only("policy.prompts=compact", context)
    return _nano_of(spec).prompts()


def as_they_are(prompts: PromptSet) -> PromptSet:
    """Return the compact prompts for what single methods ask: they word reflections and banks themselves."""
    return prompts


def has_world(preset: str) -> bool:
    """Return whether a preset plays generated games when it is given no others: those whose policy is shipped do."""
    return str(presets()[preset].get("policy.model")).startswith("data/")


def world_folder(seed: int, preset: str = "nano") -> Path:
    """Return where a preset's generated games are, or will be. Raises ConfigError for a preset without."""
    return Path("data") / f"{_world_of(preset).folder}-{seed}"


def nano_world(seed: int, preset: str = "nano") -> str:
    """Generate those games once, and return their folder. Raises RunError if others are there; as `world_folder`."""
    folder, world = world_folder(seed, preset), _world_of(preset)
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as whole:  # a kill leaves no part
            world.generate(Path(whole) / "games", seed=seed, **world.sizes)
            os.rename(Path(whole) / "games", folder)
    try:
        return str(world.generate(folder, seed=seed, **world.sizes).out)
    except FileExistsError as error:
        raise RunError(str(error)) from None


def _world_of(preset: str) -> NanoWorld:
    if preset not in presets() or not has_world(preset):
        known = ", ".join(filter(has_world, presets()))
        raise ConfigError(f"the preset {preset} has no generated games of its own (only {known} have)")
    return nano_of(load_config(preset).environment.name)
