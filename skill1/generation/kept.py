"""Keys and values of conversations, from one call to the next: every token is read or written once.

Without them the next call reads the whole conversation again, to the same result up to float rounding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from skill1.generation.sampling import Prompt, Seed

States = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values (T, H, D) of each layer


class KeptStates:
    """Keys and values of conversations, at most so many tokens of them; the least recently used go first."""

    def __init__(self, tokens: int) -> None:
        self._room = tokens
        self._kept: OrderedDict[Seed, tuple[list[int], States]] = OrderedDict()  # tokens read, and their states

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def take(self, model: PreTrainedModel, prompts: Sequence[Prompt]) -> tuple[DynamicCache, list[int]]:
        """Lay out what is known of each prompt's beginning as one cache, shorter ones padded to the left.

        Returns:
            The cache, and how many tokens of each prompt it holds.
        """
        found = [self._beginning(prompt) for prompt in prompts]
        cache = DynamicCache(config=model.config)
        some = next((states for _, states in found if states), [])
        for number, (keys, values) in enumerate(some):
            for_none = keys[:0], values[:0]
            rows = [states[number] if states else for_none for _, states in found]
            k, v = (
                pad_sequence(list(part), batch_first=True, padding_side="left").transpose(1, 2)  # (B, H, T, D)
                for part in zip(*rows, strict=True)
            )
            cache.update(k, v, number)
        return cache, [len(ids) for ids, _ in found]

    def _beginning(self, prompt: Prompt) -> tuple[list[int], States]:
        if prompt.chat is None:
            return [], []
        ids, states = self._kept.pop(prompt.chat, ([], []))
        return (ids, states) if len(ids) < len(prompt.ids) and prompt.ids[: len(ids)] == ids else ([], [])

    def keep(
        self, cache: DynamicCache, read: torch.Tensor, prompts: Sequence[Prompt], answers: Sequence[list[int]]
    ) -> None:
        """Take the states of each conversation out of a cache.

        Args:
            read: (B, T) bool, the columns of the cache that hold tokens of the row's prompt and answer, in their order.
        """
        layers = [layer for layer in cache.layers if type(layer) is DynamicLayer]
        if len(layers) < len(cache.layers):
            return  # a sliding window forgets: such models read the conversation again
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            if prompt.chat is None:
                continue
            columns = read[row].nonzero()[:, 0]
            states = [(_taken(layer.keys, row, columns), _taken(layer.values, row, columns)) for layer in layers]
            self._kept[prompt.chat] = [*prompt.ids, *answer][: len(columns)], states
        while sum(len(ids) for ids, _ in self._kept.values()) > self._room:
            self._kept.popitem(last=False)


def _taken(part: Any, row: int, columns: torch.Tensor) -> torch.Tensor:
    """(T, H, D), a copy of one row's columns of a layer's (B, H, W, D)."""
    return part[row].index_select(1, columns).transpose(0, 1).contiguous()
