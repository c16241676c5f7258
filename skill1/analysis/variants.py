"""What a variant is called, and its colour and place, in every table and figure.

A study may hold variants that this installation does not know, such as another's own method: they are called by their
name, follow the known ones, and draw from a palette that never runs out, as does every variant without a colour of its
own.
"""

from __future__ import annotations

from collections.abc import Iterable

from skill1 import presets

REFERENCE = "full"  # what the others are compared with
UNTRAINED = "untrained"  # stands where a variant's name does
PLAIN = ("grpo", "no_library")  # two names of plain GRPO

# seaborn's "colorblind" hues, a darker grey for grpo, which is no_library again, and dark hues for the other methods
_COLOURS = {
    UNTRAINED: "#333333",
    "full": "#0173b2",
    "no_library": "#949494",
    "no_selection": "#de8f05",
    "no_distillation": "#d55e00",
    "lambda1_0": "#029e73",
    "lambda2_0": "#cc78bc",
    "lambdas_0": "#ca9161",
    "grpo": "#5c5c5c",
    "gigpo": "#6a3d9a",
    "skillrl": "#e7298a",
    "skillrl_released": "#f7b6d2",
    "retroagent_in_context": "#7f3b08",
    "retroagent_rl": "#01665e",
    "retroagent_in_context_released": "#dfc27d",
    "retroagent_rl_released": "#80cdc1",
    "plus": "#1b7837",
    "plus_utility": "#a6dba0",
    "plus_rerank": "#5aae61",
    "plus_lesson": "#00441b",
}


def label(variant: str) -> str:
    """Name a variant for readers; an unknown one keeps its name."""
    known = presets.variants()
    return known[variant].label if variant in known else variant


def order(variants: Iterable[str]) -> list[str]:
    """Sort variants as tables and figures have them: the untrained policy, known variants, then the others by name."""
    known, present = [UNTRAINED, *presets.variants()], set(variants)
    return [name for name in known if name in present] + sorted(present.difference(known))


def colours(variants: Iterable[str]) -> dict[str, str]:
    """Choose each variant's colour: its own, or for the known and then the others without one, the palette's next."""
    names = order(variants)
    without = [name for name in order([*presets.variants(), *names]) if name not in _COLOURS]
    return {name: _COLOURS[name] if name in _COLOURS else _further(without.index(name)) for name in names}


def colour(variant: str) -> str:
    """Choose the colour of a variant that stands alone."""
    return colours([variant])[variant]


def _further(index: int) -> str:
    """A point of plasma, which the colour-blind can order: at 1/2, 1/4, 3/4, 1/8, …, without its end, pale on white."""
    from matplotlib import colormaps  # not at the top: whoever draws nothing need not wait for matplotlib
    from matplotlib.colors import to_hex

    point, share, rest = 0.0, 0.5, index + 1  # the van der Corput sequence: the digits of the index, mirrored
    while rest:
        point, share, rest = point + share * (rest % 2), share / 2, rest // 2
    return to_hex(colormaps["plasma"](0.85 * point))
