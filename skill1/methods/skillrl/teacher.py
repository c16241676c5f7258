"""Teachers: who writes the bank's entries. One call, `Teacher.write(call, inputs)`, three backends.

    policy     the policy itself ("self-taught" in tables; ours)
    endpoint   a model behind an OpenAI-compatible address (the paper's setting)
    scripted   counts over the episodes, in words of the nano policies, for their presets and tests (`skill1.nano.teacher`)

A teacher that fails or does not answer with a JSON array raises `TeacherError`: the caller counts it and continues.

Differs from the paper in: ids are given by the bank, not asked of the teacher; an endpoint's replies are kept by a hash
of what was asked, so that a resumed run gets the same answer and nothing is paid for twice.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from skill1.errors import PromptTooLong
from skill1.generation.calls import Seed
from skill1.generation.endpoint import ChatClient, EndpointError
from skill1.methods.skillrl.asking import Call, Inputs, question
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.registry import ConfigError, find
from skill1.store.json_file import read_json, write_json

if TYPE_CHECKING:  # what only reads rollouts need not load torch
    from skill1.policy import Policy

_SCRIPTED = "skill1.nano.teacher:ScriptedTeacher"  # of a higher layer, hence by name
_SHOWN = 120  # characters of an answer in a message


class TeacherError(RuntimeError):
    """A teacher gave no usable answer. The message says what came instead."""


class Teacher(Protocol):
    """Writes entries in the bank's public shape, without ids."""

    def write(self, call: Call, inputs: Inputs) -> list[Any]:
        """Answer a call with entries as they come: `bank.read_taught` says which can be used. Raises TeacherError."""
        ...


class PolicyTeacher:
    """The policy as it is now. Every rank must ask, and in the same order: sharded weights are gathered to write."""

    def __init__(self, config: SkillRLConfig, policy: Policy, seed: Seed) -> None:
        """`seed` names the random stream of the answers."""
        self._config = config
        self._policy = policy
        self._seed = seed
        self._asked = 0

    def write(self, call: Call, inputs: Inputs) -> list[Any]:
        """See `Teacher.write`."""
        self._asked += 1
        prompt, limit = _request(call, inputs, self._config)
        try:
            [answer] = self._policy.generate(
                [prompt],
                [(*self._seed, self._asked)],
                temperature=self._config.teacher_temperature,
                max_new_tokens=limit,
            )
        except PromptTooLong as error:
            raise TeacherError(str(error)) from None
        return read_answer(answer.text)


class EndpointTeacher:
    """A model that answers over HTTP, with its replies kept in a folder."""

    def __init__(self, config: SkillRLConfig, replies: Path) -> None:
        """
        Args:
            replies: the folder, made when there is something to keep.

        Raises:
            ConfigError, EndpointError: see `endpoint_client`.
        """
        self._config = config
        self._client = endpoint_client(config, concurrent=1)
        self._replies = replies

    def write(self, call: Call, inputs: Inputs) -> list[Any]:
        """See `Teacher.write`. Only an answer that holds a JSON array is kept."""
        prompt, limit = _request(call, inputs, self._config)
        asked = {
            "url": self._client.url,
            "model": self._client.model,
            "temperature": self._config.teacher_temperature,
            "max_tokens": limit,
            "prompt": prompt,
        }
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        kept = self._replies / f"{key}.json"
        if kept.exists():
            return read_answer(read_json(kept)["reply"])
        try:
            [reply] = self._client.ask(
                [prompt], [int(key[:7], 16)], temperature=self._config.teacher_temperature, max_new_tokens=limit
            )
        except EndpointError as error:
            raise TeacherError(str(error)) from None
        found = read_answer(reply)
        self._replies.mkdir(parents=True, exist_ok=True)
        write_json(kept, asked | {"reply": reply})
        return found


def _request(call: Call, inputs: Inputs, config: SkillRLConfig) -> tuple[str, int]:
    """The prompt, and the limit of the answer in tokens."""
    limit = config.max_evolve_tokens if call == "evolve" else config.max_bank_tokens
    return question(call, inputs, config.observation_limit), limit


def read_answer(text: str) -> list[Any]:
    """Read the JSON array in a model's answer: from the first "[" to the last "]". Raises TeacherError without one."""
    first, last = text.find("["), text.rfind("]")
    try:
        found = json.loads(text[first : last + 1]) if first >= 0 else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        raise TeacherError(f"no JSON array in the answer {shown!r}")
    return found


def endpoint_client(config: SkillRLConfig, *, concurrent: int) -> ChatClient:
    """Make the client that the configuration names; `concurrent`: requests at a time.

    Raises:
        ConfigError: no address or model.
        EndpointError: no http(s) address, or the key's variable is not set.
    """
    if config.teacher_url is None:
        raise ConfigError("method.teacher = 'endpoint' needs method.teacher_url")
    if config.teacher_model is None:
        raise ConfigError("method.teacher = 'endpoint' needs method.teacher_model")
    return ChatClient(config.teacher_url, config.teacher_model, config.teacher_key, concurrent=concurrent)


def check_teacher(config: SkillRLConfig) -> None:
    """Raise ConfigError (EndpointError for a missing key) if the configured teacher cannot work."""
    if config.teacher == "endpoint":
        endpoint_client(config, concurrent=1)
    if config.teacher == "file" and config.bank is None:
        raise ConfigError("method.teacher = 'file' needs method.bank: the bank is what that file holds")


def make_teacher(config: SkillRLConfig, policy: Policy, seed: Seed, replies: Path) -> Teacher:
    """Make the configured teacher; `check_teacher` says beforehand whether it can work.

    Args:
        policy, seed: the current policy and the random stream of this call's answers, for "policy".
        replies: folder of kept replies, for "endpoint".

    Raises:
        ConfigError: the configuration has a bank file in the place of a teacher.
    """
    match config.teacher:
        case "file":
            raise ConfigError("method.teacher = 'file' writes nothing: choose policy, endpoint or scripted")
        case "policy":
            return PolicyTeacher(config, policy, seed)
        case "endpoint":
            return EndpointTeacher(config, replies)
        case "scripted":
            return find("teachers", _SCRIPTED)()
