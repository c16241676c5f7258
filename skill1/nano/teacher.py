"""The scripted teacher of SkillRL's bank: it counts over episodes, in the nano policies' words, without a model. Ours.

ALFWorld: in which type of place an object was seen most often ("mug in cabinet"); a mistake is one of the commands that
most often had no effect. WebShop: which brand a wish was fulfilled with ("mens shirts : berden"); no mistakes.
"""

from __future__ import annotations

from typing import Any

from skill1.methods.skillrl.asking import Call, Inputs
from skill1.nano.world import nano_of

_MOST: dict[Call, int | None] = {"general": 8, "category": 4, "mistakes": 8, "evolve": None}  # entries; None: all


class ScriptedTeacher:
    """Writes entries from the episodes given, the most frequent first, ties by name."""

    def write(self, call: Call, inputs: Inputs) -> list[Any]:
        """See `skillrl.teacher.Teacher.write`."""
        world = nano_of(inputs.environment)
        count = world.mistakes if call == "mistakes" else world.principles
        counts = count(inputs.counted or (*inputs.successes, *inputs.failures))
        texts = sorted(counts, key=lambda text: (-counts[text], text))[: _MOST[call]]
        if call == "mistakes":
            return [{"description": text, "why_it_happens": "", "how_to_avoid": "look"} for text in texts]
        return [{"title": text, "principle": text, "when_to_apply": ""} for text in texts]
