"""A model behind an OpenAI-compatible endpoint: `POST <url>/chat/completions`, one user message a call.

`ChatClient` asks; `EndpointPolicy` puts it where the skill loop expects a policy, so that an API model queries, reranks
and acts by the same prompts and parsers. Differs from a policy of ours in: completions carry no token ids and
log-probs (nothing can be trained on them), the seed of a call's random stream is handed to the server, which may
ignore it, and the length of a prompt is the server's to refuse.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from skill1.errors import UserError
from skill1.policy import Completion, Seed
from skill1.prompts import PromptSet

CONCURRENT = 16  # requests at a time where nothing else is asked for
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before each retry
_LONGEST_WAIT = 120.0  # seconds, however long the server asks for
_TIMEOUT = 300.0  # seconds without a byte of an answer
_SHOWN = 200  # characters of a server's words in a message
_NO_IDS = np.zeros(0, dtype=np.int32)
_NO_LOGPROBS = np.zeros(0, dtype=np.float32)


class EndpointError(UserError, RuntimeError):
    """The endpoint cannot be used. The message names the address, what it said and what to do."""


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for this address alone."""

    def redirect_request(self, *ignored: Any) -> None:
        return None


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
        if not _is_address(url):
            raise EndpointError(f"endpoint {url!r} is no http(s) address; it looks like http://localhost:8000/v1")
        base = url.rstrip("/").removesuffix("/chat/completions")
        self.url = f"{base}/chat/completions"
        self.model = model
        self.replies = 0
        self.unusable = 0  # of these: not a chat completion, or one without text
        self._headers = {"Content-Type": "application/json"}
        self._key_variable = key_variable
        if key_variable is not None:
            if not (key := os.environ.get(key_variable, "").strip()):
                raise EndpointError(
                    f"the environment variable {key_variable} is not set: export {key_variable}=<your key>"
                )
            if not (key.isascii() and key.isprintable()):
                raise EndpointError(f"the environment variable {key_variable} holds characters that no key has")
            self._headers["Authorization"] = f"Bearer {key}"
        self._concurrent = concurrent
        self._limit = "max_tokens"  # what the field is called; newer models of OpenAI's take another name
        self._opener = urllib.request.build_opener(_StayHere)

    def ask(
        self, prompts: Sequence[str], seeds: Sequence[int], *, temperature: float, max_new_tokens: int
    ) -> list[str]:
        """The model's answers, in order. An unusable reply is counted and answers "".

        Raises:
            EndpointError: no connection, a refused key or request, nothing but errors after all retries, or not one
                usable reply so far: then it is another kind of server.
        """
        pool = ThreadPoolExecutor(self._concurrent)
        try:
            asked = [
                pool.submit(self._request, prompt, seed, temperature, max_new_tokens)
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]
            bodies = [one.result() for one in asked]
        finally:
            pool.shutdown(cancel_futures=True)
        answers = [_text(body) for body in bodies]
        self.replies += len(answers)
        self.unusable += answers.count(None)
        if self.replies and self.replies == self.unusable:
            raise EndpointError(
                f"{self.url} answers, but none of {self.replies} replies is a chat completion with text; the first was "
                f"{_shown(bodies[0])!r}: check the address and the model"
            )
        return [answer or "" for answer in answers]

    def _request(self, prompt: str, seed: int, temperature: float, max_new_tokens: int) -> bytes:
        """The body of the reply, retried while that can help."""
        for wait in (*_WAITS, None):
            body = {
                "model": self.model,
                "messages": [{"role": "user", "content": prompt}],
                "temperature": temperature,
                "seed": seed,
                (limit := self._limit): max_new_tokens,
            }
            request = urllib.request.Request(self.url, json.dumps(body).encode(), self._headers)
            try:
                with self._opener.open(request, timeout=_TIMEOUT) as reply:
                    return reply.read()
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code}: {_shown(error.read())}"
                if error.code == 400 and limit == "max_tokens" and "max_completion_tokens" in problem:
                    self._limit = "max_completion_tokens"
                    continue
                if error.code != 429 and error.code < 500:
                    raise EndpointError(self._refused(error.code, problem)) from None
                asked_for = error.headers.get("Retry-After", "")
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                problem, asked_for = f"{type(reason).__name__}: {reason}", ""
                if not self.replies and isinstance(reason, (ConnectionRefusedError, socket.gaierror)):
                    there = f"there is no server at {self.url} ({reason})"
                    raise EndpointError(f"{there}: start it, or check the address") from None
            if wait is not None:
                time.sleep(min(max(wait, float(asked_for) if asked_for.isdecimal() else 0.0), _LONGEST_WAIT))
        raise EndpointError(f"{self.url} failed {len(_WAITS) + 1} times, the last time with {problem}: try again later")

    def _refused(self, code: int, problem: str) -> str:
        if code in (401, 403):
            key = (
                f"the key in {self._key_variable}" if self._key_variable else "a request without a key (--api-key-env)"
            )
            return f"{self.url} refuses {key} ({problem})"
        return f"{self.url} refuses a request to model {self.model!r} ({problem}): check the address, model and options"


class EndpointPolicy:
    """What the skill loop asks of a policy, answered by an endpoint."""

    def __init__(self, client: ChatClient, prompts: PromptSet) -> None:
        self.client = client
        self.prompts = prompts

    def generate(
        self, texts: Sequence[str], seeds: Sequence[Seed], *, temperature: float, max_new_tokens: int
    ) -> list[Completion]:
        """See `Policy.generate`. Raises EndpointError, see `ChatClient.ask`."""
        numbers = [int(np.random.SeedSequence(seed).generate_state(1)[0]) >> 1 for seed in seeds]  # 31 bits
        answers = self.client.ask(texts, numbers, temperature=temperature, max_new_tokens=max_new_tokens)
        return [Completion(_NO_IDS, _NO_IDS, _NO_LOGPROBS, answer) for answer in answers]


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # ValueError if it is no number
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)


def _text(body: bytes) -> str | None:
    """The text of a chat completion; None if there is none."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return content if isinstance(content, str) and content.strip() else None


def _shown(body: bytes) -> str:
    """The beginning of what a server said, its error message where it has one."""
    try:
        said = json.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        said = body.decode(errors="replace")
    return " ".join(str(said).split())[:_SHOWN]
