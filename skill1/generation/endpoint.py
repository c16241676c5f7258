"""A model behind an OpenAI-compatible endpoint, asked by the `openai` client.

`ChatClient` asks; `EndpointPolicy` puts it where the skill loop expects a policy, so that an API model queries, reranks
and acts by the same prompts and parsers. Differs from a policy of ours in: completions carry no token ids and
log-probs (nothing can be trained on them), the seed of a call's random stream is handed to the server, which may
ignore it, and the length of a prompt is the server's to refuse.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from openai import APIConnectionError, APIError, APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient, omit
from pydantic import HttpUrl, TypeAdapter, ValidationError

from skill1.errors import UserError
from skill1.generation.calls import Chat, Completion, Seed
from skill1.prompts import PromptSet

CONCURRENT = 16  # requests at a time where nothing else is asked for
RETRIES = 8  # of a request, waiting for 40 s in all, or as long as the server asks for (at most 120 s each time)
_TIMEOUT = 300.0  # seconds without a byte of an answer
_SHOWN = 200  # characters of a server's words in a message
_ADDRESS = TypeAdapter(HttpUrl)
Messages = list[dict[str, str]]  # {"role": "user", "content": "..."}, ...
_NO_IDS = np.zeros(0, dtype=np.int32)
_NO_LOGPROBS = np.zeros(0, dtype=np.float32)


class EndpointError(UserError, RuntimeError):
    """The endpoint cannot be used. The message names the address, what it said and what to do."""


class ChatClient:
    """Asks one model of an endpoint, several prompts at a time; 429, 5xx and broken connections are tried again."""

    def __init__(self, url: str, model: str, key_variable: str | None = None, *, concurrent: int = CONCURRENT) -> None:
        """
        Args:
            url: the base, e.g. "https://api.openai.com/v1", with or without "/chat/completions".
            key_variable: environment variable that holds the key; None = none is sent (a server of one's own).
            concurrent: requests at a time.

        Raises:
            EndpointError: no http(s) address, or the variable is not set.
        """
        try:
            _ADDRESS.validate_python(url)
        except ValidationError:
            example = "it looks like http://localhost:8000/v1"
            raise EndpointError(f"endpoint {url!r} is no http(s) address; {example}") from None
        self._base = url.rstrip("/").removesuffix("/chat/completions")
        self.url = f"{self._base}/chat/completions"
        self.model = model
        self.replies = 0
        self.unusable = 0  # of these: not a chat completion, or one without text
        self._key_variable = key_variable
        self._key = "none" if key_variable is None else _read_key(key_variable)  # the client wants one
        self._headers: dict[str, Any] = {} if key_variable else {"Authorization": omit}
        self._concurrent = concurrent
        self._limit = "max_tokens"  # what the field is called; newer models of OpenAI's take another name

    def ask(
        self, prompts: Sequence[str | Messages], seeds: Sequence[int], *, temperature: float, max_new_tokens: int
    ) -> list[str]:
        """Return the model's answers, in order. An unusable reply is counted and answers "".

        Args:
            prompts: each one user message, or all messages of a conversation.

        Raises:
            EndpointError: no connection, a refused key or request, nothing but errors after all retries, or not one
                usable reply so far: then it is another kind of server.
        """
        bodies = asyncio.run(self._replies(prompts, seeds, temperature, max_new_tokens))
        answers = [_text(body) for body in bodies]
        self.replies += len(answers)
        self.unusable += answers.count(None)
        if self.replies and self.replies == self.unusable:
            raise EndpointError(
                f"{self.url} answers, but none of {self.replies} replies is a chat completion with text; the first was "
                f"{_shown(bodies[0])!r}: check the address and the model"
            )
        return [answer or "" for answer in answers]

    async def _replies(
        self, prompts: Sequence[str | Messages], seeds: Sequence[int], temperature: float, max_new_tokens: int
    ) -> list[str]:
        """Ask for all answers, `concurrent` at a time, over connections that are closed at the end."""
        turn = asyncio.Semaphore(self._concurrent)
        # the key is for this address alone: no redirect is followed
        web = DefaultAsyncHttpxClient(follow_redirects=False)
        async with AsyncOpenAI(
            base_url=self._base,
            api_key=self._key,
            http_client=web,
            timeout=_TIMEOUT,
            max_retries=RETRIES,
        ) as client:
            if prompts and not self.replies:
                await self._look_for_server(client)

            async def answer(prompt: str | Messages, seed: int) -> str:
                messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
                async with turn:
                    return await self._reply(client, messages, seed, temperature, max_new_tokens)

            return await asyncio.gather(*(answer(*asked) for asked in zip(prompts, seeds, strict=True)))

    async def _look_for_server(self, client: AsyncOpenAI) -> None:
        """Find out whether anything answers at the address, without the waits of a request that is retried."""
        try:
            await client.with_options(max_retries=0).models.list(extra_headers=self._headers)
        except APIConnectionError as error:
            there = f"there is no server at {self.url} ({error.__cause__ or error})"
            raise EndpointError(f"{there}: start it, or check the address") from None
        except APIError:
            pass  # it answered; not every server lists its models

    async def _reply(
        self, client: AsyncOpenAI, messages: Messages, seed: int, temperature: float, max_new_tokens: int
    ) -> str:
        """Return the body of the reply."""
        limit = self._limit
        asked: Any = messages  # the client has a type of its own for each role
        try:
            raw = await client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=asked,
                temperature=temperature,
                seed=seed,
                extra_headers=self._headers,
                extra_body={limit: max_new_tokens},
            )
            return raw.text
        except APIConnectionError as error:
            problem = f"{type(error.__cause__ or error).__name__}: {error.__cause__ or error}"
        except APIStatusError as error:
            code = error.status_code
            problem = f"HTTP {code}: {_shown(error.response.text)}"
            if code == 400 and limit == "max_tokens" and "max_completion_tokens" in problem:
                self._limit = "max_completion_tokens"
                return await self._reply(client, messages, seed, temperature, max_new_tokens)
            if code in (401, 403):
                key = (
                    f"the key in {self._key_variable}"
                    if self._key_variable
                    else "requests without a key (--api-key-env)"
                )
                raise EndpointError(f"{self.url} refuses {key} ({problem})") from None
            if code not in (408, 409, 429) and code < 500:
                asked = f"a request to model {self.model!r} ({problem})"
                raise EndpointError(f"{self.url} refuses {asked}: check the address, model and options") from None
        raise EndpointError(f"{self.url} failed {RETRIES + 1} times, the last time with {problem}: try again later")


class EndpointPolicy:
    """What the skill loop asks of a policy, answered by an endpoint."""

    def __init__(self, client: ChatClient, prompts: PromptSet) -> None:
        self.client = client
        self.prompts = prompts

    def generate(
        self,
        texts: Sequence[str],
        seeds: Sequence[Seed],
        *,
        temperature: float,
        max_new_tokens: int,
        chats: Sequence[Chat] | None = None,
    ) -> list[Completion]:
        """See `Policy.generate`. Raises EndpointError, see `ChatClient.ask`."""
        numbers = [int(np.random.SeedSequence(seed).generate_state(1)[0]) >> 1 for seed in seeds]  # 31 bits
        said = [[]] * len(texts) if chats is None else [chat.said for chat in chats]
        asked = [self.prompts.messages(before, text) for before, text in zip(said, texts, strict=True)]
        answers = self.client.ask(asked, numbers, temperature=temperature, max_new_tokens=max_new_tokens)
        return [Completion(_NO_IDS, _NO_IDS, _NO_LOGPROBS, answer) for answer in answers]


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise EndpointError(f"the environment variable {variable} is not set: export {variable}=<your key>")
    if not (key.isascii() and key.isprintable()):
        raise EndpointError(f"the environment variable {variable} holds characters that no key has")
    return key


def _text(body: str) -> str | None:
    """Return the text of a chat completion; None if there is none."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return content if isinstance(content, str) and content.strip() else None


def _shown(body: str) -> str:
    """Return the beginning of what a server said, its error message where it has one."""
    try:
        said = json.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        said = body
    return " ".join(str(said).split())[:_SHOWN]
