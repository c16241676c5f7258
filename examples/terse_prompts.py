"""A prompt set of one's own: as `full`, but acting without a thought. `--set policy.prompts=examples/terse_prompts.py:make`"""

from __future__ import annotations

import re
from collections.abc import Sequence

from skill1.envs.spec import EnvironmentSpec
from skill1.prompts import ActContext, Context, Parsed, window_only
from skill1.prompts.full import FullPrompts


class TersePrompts(FullPrompts):
    """Asks for an action alone, and reads the last line of the answer as one."""

    def act(self, context: ActContext) -> str:
        """Write the act prompt: skill and task first, since they stay the same over the episode."""
        past = "".join(f"\n{observation}\n> {action}" for observation, action in context.history)
        choices = "\n".join(context.observation.admissible)
        return (
            f"{context.skill}\nYou are solving {self.words.setting}. Task: {context.start.instruction}{past}\n"
            f"{context.observation.text}\nPossible actions:\n{choices}\nAnswer with one action."
        )

    def parse_action(self, text: str, admissible: Sequence[str]) -> Parsed:
        """Read the last line; one that is no admissible action, whatever its case, is ill-formed."""
        said = re.sub(r"^[>\s]+", "", text.strip().splitlines()[-1]) if text.strip() else ""
        known = {action.lower(): action for action in admissible}
        return Parsed(known.get(said.lower(), said), said.lower() in known)

    def write_action(self, command: str, thought: str = "") -> str:
        """Write the action as `parse_action` reads it, for demonstrations."""
        return command


def make(spec: EnvironmentSpec, context: Context) -> TersePrompts:
    """Build the prompts in an environment's words."""
    window_only("terse_prompts.py", context)
    return TersePrompts(spec.words)
