"""Calls as token ids, in the form of a tokenizer's own chat template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from skill1.registry import ConfigError

if TYPE_CHECKING:  # a command that only reads a configuration need not load transformers
    from transformers import PreTrainedTokenizerBase

_ANSWER, _TEXT = "answer7c41e0", "text93bd2f"  # what stands for them while a frame is found: words of no template
_EDGES = f"\n {_TEXT} \n"


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a template puts around a user's text after an answer."""

    before: str  # begins with what ends the answer
    after: str
    clean: Callable[[str], str]  # what the template does to the text

    def fill(self, text: str) -> str:
        return f"{self.before}{self.clean(text)}{self.after}"


def encode_first(tokenizer: PreTrainedTokenizerBase, system: str, text: str) -> list[int]:
    """Encode a chat of one user message, up to where the assistant starts writing.

    Args:
        system: the system message, "" for none.

    Raises:
        ConfigError: the tokenizer has no template, or one that takes no system message.
    """
    return tokenizer(_render(tokenizer, system, text), add_special_tokens=False)["input_ids"]


def encode_next(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode what follows an answer: the token that ends it, the next user message, the start of the next answer.

    After the ids of `encode_first` and of the answer they are those of the whole chat, for every template that leaves
    earlier messages as they were.

    Raises:
        ConfigError: there is no template, it changes or drops messages, or it ends an answer with another token than
            `tokenizer.eos_token_id`.
    """
    frame = _frame(tokenizer, str(tokenizer.chat_template))
    return tokenizer(frame.fill(text), add_special_tokens=False)["input_ids"]


@lru_cache(maxsize=8)
def _frame(tokenizer: PreTrainedTokenizerBase, template: str) -> _Frame:
    """Find the frame; a `template` that was replaced is another entry of the cache."""
    before, found, after = _following(tokenizer, _TEXT).partition(_TEXT)
    edged = _following(tokenizer, _EDGES)
    for clean in (str, str.strip):
        frame = _Frame(before, after, clean)
        if found and frame.fill(_EDGES) == edged:
            break
    else:
        raise ConfigError(
            f"policy.model: the chat template of {tokenizer.name_or_path!r} does not keep the messages of a chat as they are: "
            "set rollout.context=window"
        )
    if tokenizer(before, add_special_tokens=False)["input_ids"][:1] != [tokenizer.eos_token_id]:
        raise ConfigError(
            f"policy.model: the chat template of {tokenizer.name_or_path!r} ends an answer with {before[:20]!r}, its end "
            f"token is {tokenizer.eos_token!r}: make them the same in its tokenizer_config.json, or set "
            "rollout.context=window"
        )
    return frame


def _following(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """What follows the answer in a chat that continues with `text`; "" where the template has dropped the answer."""
    return _render(tokenizer, "", "x", _ANSWER, text).partition(_ANSWER)[2]


def _render(tokenizer: PreTrainedTokenizerBase, system: str, *messages: str) -> str:
    """Write a chat of alternating messages, the user's first, up to where the assistant continues."""
    if not tokenizer.chat_template:
        raise ConfigError(
            f"policy.model: the tokenizer of {tokenizer.name_or_path!r} has no chat template, which the prompts need: use an "
            "instruction-tuned model, or add its chat_template.jinja to the folder"
        )
    said = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(messages)]
    chat = [{"role": "system", "content": system}, *said] if system else said
    try:
        text: Any = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        return text
    except TemplateError as error:
        advice = "make the template system.jinja an empty file" if system else "use another model"
        raise ConfigError(
            f"policy.model: the chat template of {tokenizer.name_or_path!r} refuses "
            f"{'a system message' if system else 'a chat'} ({error}): {advice}"
        ) from None
