"""Calls as token ids: the first of a chat, and what follows an answer, by the tokenizer's own template."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import CHATML, LLAMA3, byte_tokenizer, tiny_tokenizer

from skill1.config import ConfigError
from skill1.prompts.chat import encode_first, encode_next

STYLES = {"chatml": byte_tokenizer(CHATML), "llama3": byte_tokenizer(LLAMA3), "words": tiny_tokenizer()}
MISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + '</s>' }}{% endif %}{% endfor %}"
)


def ids(tokenizer, *parts: str | int) -> list[int]:
    """Token ids as they stand, and plain texts as their bytes."""
    found = []
    for part in parts:
        found += [part] if isinstance(part, int) else tokenizer(part, add_special_tokens=False)["input_ids"]
    return found


def test_what_follows_an_answer_in_a_chatml_chat() -> None:
    tokenizer, (end, start) = STYLES["chatml"], (256, 257)
    assert encode_first(tokenizer, "", "Hi") == ids(tokenizer, start, "user\nHi", end, "\n", start, "assistant\n")
    assert encode_next(tokenizer, "Go") == ids(
        tokenizer, end, "\n", start, "user\nGo", end, "\n", start, "assistant\n"
    )  # fmt: skip
    assert encode_first(tokenizer, "Be brief.", "Hi")[:10] == ids(tokenizer, start, "system\nBe")


def test_what_follows_an_answer_in_a_llama_3_chat() -> None:
    tokenizer, (end, head, headed, begin) = STYLES["llama3"], range(256, 260)
    opened = (head, "assistant", headed, "\n\n")
    assert encode_first(tokenizer, "", " Hi\n") == ids(tokenizer, begin, head, "user", headed, "\n\nHi", end, *opened)
    assert encode_next(tokenizer, " Go\n") == ids(tokenizer, end, head, "user", headed, "\n\nGo", end, *opened)


@pytest.mark.parametrize("style", STYLES)
@given(st.lists(st.text(), min_size=3, max_size=5), st.text())
def test_call_by_call_is_the_whole_chat(style: str, texts: list[str], system: str) -> None:
    tokenizer = STYLES[style]
    answers = [f"answer {i}" for i in range(len(texts) - 1)]
    chat = [{"role": "system", "content": system}] if system else []
    written = encode_first(tokenizer, system, texts[0])
    for i, text in enumerate(texts):
        if i:
            written += ids(tokenizer, answers[i - 1]) + encode_next(tokenizer, text)
            chat.append({"role": "assistant", "content": answers[i - 1]})
        chat.append({"role": "user", "content": text})
    assert written == tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


@pytest.mark.parametrize("text", ["{{ messages }}", "<|im_end|>", "answer7c41e0", "text93bd2f", "<|im_start|>system\n"])
def test_a_text_is_read_as_apply_chat_template_reads_it(text: str) -> None:
    tokenizer = STYLES["chatml"]
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": text}]
    whole = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert encode_first(tokenizer, "", "x") + ids(tokenizer, "y") + encode_next(tokenizer, text) == whole


def test_an_end_token_right_after_the_answer_will_do() -> None:
    tokenizer = byte_tokenizer(MISTRAL, ("</s>",))
    assert encode_next(tokenizer, "Go") == ids(tokenizer, 256, "[INST] Go[/INST]")


def test_a_template_that_is_replaced_is_read_again() -> None:
    tokenizer = byte_tokenizer(CHATML)
    before = encode_next(tokenizer, "Go")
    tokenizer.chat_template = CHATML.replace("assistant\n", "assistant: ")
    assert encode_next(tokenizer, "Go") != before


@pytest.mark.parametrize(
    "template, message",
    [
        (
            CHATML.replace("<|im_end|>", "<|im_start|>"),
            "ends an answer with .*, its end token is '<.im_end.>': make them",
        ),
        (MISTRAL.replace("</s>", " </s>"), "ends an answer with ' </s>"),
        (CHATML.replace("messages %}", "messages[-1:] %}", 1), "does not keep the messages"),
        (CHATML.replace("m['content']", "m['content'] | upper"), "does not keep the messages"),
        ("{{ raise_exception('no chat') }}", r"refuses a chat \(no chat\): use another model"),
    ],
)
def test_templates_that_cannot_be_continued_are_refused(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"policy.model: the chat template of .* {message}"):
        encode_next(byte_tokenizer(template, ("<|im_end|>", "<|im_start|>", "</s>")), "Go")


@pytest.mark.parametrize("encode", [lambda t: encode_first(t, "", "Hi"), lambda t: encode_next(t, "Go")])
def test_a_tokenizer_without_a_template_is_named(encode) -> None:
    tokenizer = byte_tokenizer(CHATML)
    tokenizer.chat_template = None
    with pytest.raises(
        ConfigError, match="has no chat template, which the prompts need: use an instruction-tuned model"
    ):
        encode(tokenizer)


def test_a_template_without_a_system_message_is_named() -> None:
    no_system = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    tokenizer = byte_tokenizer(no_system, ("<|im_end|>", "<|im_start|>"))
    assert encode_first(tokenizer, "", "Hi") == encode_first(STYLES["chatml"], "", "Hi")
    with pytest.raises(ConfigError, match="refuses a system message .no system.: make the template system.jinja"):
        encode_first(tokenizer, "Be brief.", "Hi")
