"""Demonstrations as tokens: a chat is one sequence, in which the answers to be learnt are marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from skill1.config import Config, ConfigError, method_of
from skill1.models.demonstrations import Chat
from skill1.policy import encode_call
from skill1.prompts import PromptSet, make_prompts
from skill1.records import Stage

IGNORED = -100  # the label of a token that is not learnt


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to be learnt, with the token that ends it."""

    stage: Stage
    start: int  # of its first token in the sequence, >= 1
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class ChatTokens:
    """One chat up to the end of the last answer that is to be learnt."""

    ids: np.ndarray  # (T,) int32
    answers: tuple[Answer, ...]  # in their order, at least one
    game: str  # that was played, "" where it is not known

    @property
    def learnt(self) -> np.ndarray:
        """(N,) positions of the tokens to be learnt."""
        return np.concatenate([np.arange(answer.start, answer.stop) for answer in self.answers])

    @property
    def labels(self) -> np.ndarray:
        """(T,) the tokens to be learnt, `IGNORED` elsewhere."""
        labels = np.full_like(self.ids, IGNORED)
        labels[self.learnt] = self.ids[self.learnt]
        return labels


def tokenize(
    chats: Sequence[Chat], config: Config, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[ChatTokens], list[Chat]]:
    """Encode chats as the policy would read and write them.

    Returns:
        The chats, and those left out: conversations with more than `rollout.max_prompt_tokens` tokens before the last
        answer to be learnt, which a rollout would hardly reach.

    Raises:
        ConfigError: an answer to be learnt is of a stage that the run's method does not have, or is longer than the
            stage's limit; outside a conversation, a chat has several calls or its prompt is longer than
            `rollout.max_prompt_tokens`; the tokenizer does not know a word; or nothing is left. Names the line.
    """
    limit = config.rollout.max_prompt_tokens
    conversation = config.rollout.context == "conversation"
    prompts = make_prompts(config.policy.prompts, config.environment.name, config.rollout.context)
    limits = method_of(config).trained_stages(config)
    kept, left_out = [], []
    for chat in chats:
        if len(chat.calls) > 1 and not conversation:
            raise ConfigError(
                f"{chat.place}: a chat of {len(chat.calls)} calls, but with rollout.context=window every call is a chat: set "
                "rollout.context=conversation, or demonstrate again"
            )
        tokens = _encode(chat, prompts, tokenizer, limits)
        longest = tokens.answers[-1].start
        if longest <= limit:
            kept.append(tokens)
        elif conversation:
            left_out.append(chat)
        else:
            raise ConfigError(f"{chat.place}: the prompt has {longest} tokens, rollout.max_prompt_tokens is {limit}")
    if not kept:
        raise ConfigError(
            f"every one of {len(chats)} conversations is longer than rollout.max_prompt_tokens={limit}: raise the limit"
        )
    return kept, left_out


def _encode(
    chat: Chat, prompts: PromptSet, tokenizer: PreTrainedTokenizerBase, limits: Mapping[Stage, int]
) -> ChatTokens:
    ids: list[int] = []
    answers = []
    for call in chat.calls:
        prompt = encode_call(prompts, tokenizer, ids, call.prompt)
        answer = [*tokenizer.encode(call.completion, add_special_tokens=False), tokenizer.eos_token_id]
        for name, part in (("prompt", prompt), ("completion", answer)):
            if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in part:
                raise ConfigError(f"{chat.place}: the {name} has a word that the tokenizer does not know")
        ids += prompt
        if call.learn:
            if call.stage not in limits:
                raise ConfigError(
                    f"{chat.place}: an answer of the stage {call.stage!r}, but the run has {', '.join(limits)}: "
                    "choose the --variant that was demonstrated"
                )
            if len(answer) > limits[call.stage]:
                raise ConfigError(
                    f"{chat.place}: the completion has {len(answer)} tokens with its end, the limit of the stage "
                    f"{call.stage!r} is {limits[call.stage]}"
                )
            answers.append(Answer(call.stage, len(ids), len(ids) + len(answer)))
        ids += answer
    return ChatTokens(np.asarray(ids[: answers[-1].stop], np.int32), tuple(answers), chat.game)
