"""Teachers that are language models: the policy itself, and a model behind an OpenAI-compatible endpoint.

Differs from the paper in: the self-taught bank is ours; replies of an endpoint are kept by a hash of what was asked, so
that a resumed run hears the same answer and nothing is paid for twice.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from skill1.generation.endpoint import ChatClient, EndpointError
from skill1.methods.skillrl.asking import question
from skill1.methods.skillrl.bank import SkillBank
from skill1.methods.skillrl.options import SkillRLConfig
from skill1.methods.skillrl.teacher import (
    Call,
    FileTeacher,
    Inputs,
    Teacher,
    TeacherError,
    read_answer,
)
from skill1.policy import Policy, PromptTooLong, Seed
from skill1.registry import ConfigError, find
from skill1.store.atomic import replace_file

_SCRIPTED = "skill1.nano.teacher:ScriptedTeacher"  # of a higher layer, hence by name


class PolicyTeacher:
    """The policy as it is now. Every rank must ask, and in the same order: sharded weights are gathered to write."""

    def __init__(self, policy: Policy, config: SkillRLConfig, seed: Seed) -> None:
        """`seed` names the random stream of the answers."""
        self._policy = policy
        self._config = config
        self._seed = seed
        self._asked = 0

    def write(self, call: Call, inputs: Inputs) -> list[Any]:
        """See `Teacher.write`."""
        self._asked += 1
        try:
            [answer] = self._policy.generate(
                [question(call, inputs, self._config.observation_limit)],
                [(*self._seed, self._asked)],
                temperature=self._config.teacher_temperature,
                max_new_tokens=_limit(call, self._config),
            )
        except PromptTooLong as error:
            raise TeacherError(str(error)) from None
        return read_answer(answer.text)


class EndpointTeacher:
    """A model that answers over HTTP, with its replies kept in a folder."""

    def __init__(self, client: ChatClient, config: SkillRLConfig, replies: Path) -> None:
        """`replies`: the folder, made when there is something to keep."""
        self._client = client
        self._config = config
        self._replies = replies

    def write(self, call: Call, inputs: Inputs) -> list[Any]:
        """See `Teacher.write`. Only an answer that holds a JSON array is kept."""
        prompt, limit = question(call, inputs, self._config.observation_limit), _limit(call, self._config)
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
            return read_answer(json.loads(kept.read_text(encoding="utf-8"))["reply"])
        try:
            [reply] = self._client.ask(
                [prompt], [int(key[:7], 16)], temperature=self._config.teacher_temperature, max_new_tokens=limit
            )
        except EndpointError as error:
            raise TeacherError(str(error)) from None
        found = read_answer(reply)
        self._replies.mkdir(parents=True, exist_ok=True)
        replace_file(kept, json.dumps(asked | {"reply": reply}, indent=2).encode())
        return found


def _limit(call: Call, config: SkillRLConfig) -> int:
    return config.max_evolve_tokens if call == "evolve" else config.max_bank_tokens


def endpoint_client(config: SkillRLConfig, *, concurrent: int = 1) -> ChatClient:
    """The client that the configuration names; `concurrent`: requests at a time.

    Raises:
        ConfigError: no address or model.
        EndpointError: no http(s) address, or the key's variable is not set.
    """
    for name in ("teacher_url", "teacher_model"):
        if getattr(config, name) is None:
            raise ConfigError(f"method.teacher = 'endpoint' needs method.{name}")
    return ChatClient(config.teacher_url, config.teacher_model, config.teacher_key, concurrent=concurrent)


def check_teacher(config: SkillRLConfig) -> None:
    """Raise ConfigError (EndpointError for a missing key) if the configured teacher cannot work."""
    if config.teacher == "endpoint":
        endpoint_client(config)
    if config.teacher == "file" and config.bank is None:
        raise ConfigError("method.teacher = 'file' needs method.bank: the bank is what that file holds")


def make_teacher(config: SkillRLConfig, bank: SkillBank, policy: Policy, seed: Seed, replies: Path) -> Teacher:
    """The configured teacher; `check_teacher` says beforehand whether it can work.

    Args:
        bank: what a teacher of the kind "file" knows.
        policy, seed: the current policy and the random stream of this call's answers, for "policy".
        replies: folder of kept replies, for "endpoint".
    """
    match config.teacher:
        case "file":
            return FileTeacher(bank)
        case "policy":
            return PolicyTeacher(policy, config, seed)
        case "endpoint":
            return EndpointTeacher(endpoint_client(config), config, replies)
        case "scripted":
            return find("teachers", _SCRIPTED)()
