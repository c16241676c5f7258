"""Keys and values of conversations, from one call to the next: every token is read or written once.

Without them the next call reads the whole conversation again, to the same result up to float rounding. What is new is
read apart from writing, conversations with about as much of it together: turns differ so much in length that, all padded to
the longest, most of what passes the model would be padding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, StaticLayer

from skill1.generation.calls import Prompt, Seed

States = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values (H, T, D) of each layer
_PADDING = 0.25  # of the tokens read at a time, at most


class KeptStates:
    """Keys and values of conversations, at most so many tokens of them; the least recently used go first."""

    def __init__(self, tokens: int) -> None:
        self._room = tokens
        self._kept: OrderedDict[Seed, tuple[list[int], States]] = OrderedDict()  # tokens read, and their states

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    @torch.no_grad()
    def read(self, model: PreTrainedModel, prompts: Sequence[Prompt], pad: int) -> None:
        """Read of each conversation all that is new but the last token, with which writing begins."""
        unread = {i: len(p.ids) - 1 - len(self._known(p)) for i, p in enumerate(prompts) if p.chat is not None}
        for group in _groups({i: count for i, count in unread.items() if count > 0}):
            heads = [replace(prompts[i], ids=prompts[i].ids[:-1]) for i in group]
            cache, known = self.take(model, heads, 0)
            if len(_layers(cache)) < len(cache.layers):
                return
            ids, mask = side_by_side([head.ids for head in heads], known, pad)
            ids, mask = ids.to(model.device), mask.to(model.device)
            model.get_decoder()(  # without the LM head, of which nothing is wanted
                input_ids=ids[:, max(known) :],
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, max(known) :],
                past_key_values=cache,
            )
            self.keep(cache, mask.bool(), heads, [[]] * len(heads))

    def take(self, model: PreTrainedModel, prompts: Sequence[Prompt], room: int) -> tuple[DynamicCache, list[int]]:
        """Lay out what is known of each prompt's beginning as one cache, shorter ones padded to the left.

        Its layers have room for all that comes, so that no token copies what is there; those with a sliding window do not.

        Args:
            room: tokens that will be written behind the prompts.

        Returns:
            The cache, and how many tokens of each prompt it holds.
        """
        found = [self._beginning(prompt) for prompt in prompts]
        known = [len(ids) for ids, _ in found]
        width, unread = max(known), max(len(prompt.ids) - n for prompt, n in zip(prompts, known, strict=True))
        cache = DynamicCache(config=model.config)
        cache.layers = [
            StaticLayer(width + unread + room) if type(layer) is DynamicLayer else layer for layer in cache.layers
        ]
        if width:
            for number, layer in enumerate(_layers(cache)):
                _lay_out(layer, [states[number] if states else None for _, states in found], width)
        return cache, known

    def _known(self, prompt: Prompt) -> list[int]:
        """The tokens that are kept of a prompt's beginning."""
        ids, _ = self._kept.get(prompt.chat, ([], [])) if prompt.chat is not None else ([], [])
        return ids if len(ids) < len(prompt.ids) and prompt.ids[: len(ids)] == ids else []

    def _beginning(self, prompt: Prompt) -> tuple[list[int], States]:
        known = self._known(prompt)
        _, states = self._kept.pop(prompt.chat, ([], [])) if prompt.chat is not None else ([], [])
        return known, states if known else []

    def keep(
        self, cache: DynamicCache, read: torch.Tensor, prompts: Sequence[Prompt], answers: Sequence[list[int]]
    ) -> None:
        """Take the states of each conversation out of a cache.

        Args:
            read: (B, T) bool, the columns of the cache that hold tokens of the row's prompt and answer, in their order.
        """
        layers = _layers(cache)
        if len(layers) < len(cache.layers):
            return
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            if prompt.chat is None:
                continue
            columns = read[row].nonzero()[:, 0]
            states = [(_taken(layer.keys, row, columns), _taken(layer.values, row, columns)) for layer in layers]
            self._kept[prompt.chat] = [*prompt.ids, *answer][: len(columns)], states
        while sum(len(ids) for ids, _ in self._kept.values()) > self._room:
            self._kept.popitem(last=False)


def side_by_side(prompts: Sequence[list[int]], known: Sequence[int], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay out prompts as `KeptStates.take` does: what is known, then what is new, each with its padding to the left.

    Returns:
        (B, T) tokens, and which of them are no padding.
    """
    kept = max(known)
    width = kept + max(len(ids) - n for ids, n in zip(prompts, known, strict=True))
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, n) in enumerate(zip(prompts, known, strict=True)):
        for end, part in ((kept, prompt[:n]), (width, prompt[n:])):
            ids[row, end - len(part) : end] = torch.tensor(part, dtype=torch.long)
            mask[row, end - len(part) : end] = 1
    return ids, mask


def _lay_out(layer: StaticLayer, rows: Sequence[tuple[torch.Tensor, torch.Tensor] | None], width: int) -> None:
    """Begin an empty layer with the rows' keys and values, each padded to the left to `width`."""
    some = next(row for row in rows if row is not None)
    layer.lazy_initialization(*(part[None].expand(len(rows), -1, -1, -1) for part in some))
    layer.cumulative_length.fill_(width)
    assert layer.keys is not None and layer.values is not None  # since it is initialized
    for keys, values, row in zip(layer.keys, layer.values, rows, strict=True):
        if row is not None:
            begin = width - row[0].shape[1]
            keys[:, begin:width], values[:, begin:width] = row


def _layers(cache: DynamicCache) -> list[StaticLayer]:
    """Those that keep everything. A sliding window forgets: models with one read the conversation again."""
    return [layer for layer in cache.layers if isinstance(layer, StaticLayer)]


def _groups(counts: Mapping[int, int]) -> Iterator[list[int]]:
    """The keys of about equal counts together."""
    group: list[int] = []
    for i in sorted(counts, key=counts.__getitem__):
        tokens = sum(counts[j] for j in group) + counts[i]
        if group and (len(group) + 1) * counts[i] > (1 + _PADDING) * tokens:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _taken(part: Any, row: int, columns: torch.Tensor) -> torch.Tensor:
    """(H, T, D), a copy of one row's columns of a layer's (B, H, W, D)."""
    return part[row].index_select(1, columns)
