"""The environments as tasks of `verifiers` (its v1 interface): the engine plays the user of one chat per episode.

    vf-eval skill1-envs --env.taskset.environment alfworld --env.taskset.split valid_seen --env.taskset.options.data data/games

`verifiers` finds the top-level module `skill1_envs`, which exports the three classes that it looks for.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import cache
from typing import Any, Self

import verifiers.v1 as vf
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError
from pydantic import Field, model_validator
from verifiers.v1.dialects.chat import message_to_wire

from skill1.config import environment_config
from skill1.envs.adapters.shared import SharedEnvironment
from skill1.presets import DEFAULT_ENVIRONMENT

_ANSWER = "Answer with one action at a time, alone on the last line."


class GameData(vf.TaskData):
    """Which task it is, by which another process finds it again."""

    environment: str
    split: str
    game: str
    category: str


class GameTask(vf.Task[GameData]):
    """A task, known by its name rather than by its place in the split."""

    @property
    def key(self) -> str:
        return f"{self.data.environment}/{self.data.split}/{self.data.game}"


class GameTasksetConfig(vf.TasksetConfig):
    """Which tasks are played, under `--env.taskset`."""

    environment: str = DEFAULT_ENVIRONMENT
    """An environment's name, "module:OBJECT" or "file.py:OBJECT"."""
    split: str = "train"
    """Of the environment's data."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Fields of the environment's section of a configuration: `data`, `max_steps`, ..."""
    list_admissible: bool = True
    """Whether messages list the admissible actions: easier, and many more tokens."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        environment_config(self.environment, self.options)
        return self


class GameTaskset(vf.Taskset[GameTask, GameTasksetConfig]):
    """The tasks of a split, in sorted order."""

    def __init__(self, config: GameTasksetConfig) -> None:
        """Raises DataError if the environment's data is missing or malformed."""
        super().__init__(config)
        self.shared = SharedEnvironment(config.environment, list_admissible=config.list_admissible, **config.options)

    def load(self) -> Iterator[GameTask]:
        """Yield the tasks, whose first message the engine writes. Raises DataError if there are none."""
        for game, task in self.shared.tasks(self.config.split).items():
            data = GameData(
                name=game,
                system_prompt=f"{self.shared.rules} {_ANSWER}",
                environment=task.environment,
                split=task.split,
                game=game,
                category=task.category,
            )
            yield GameTask(data, self.config.task)


class ChatHarness(vf.Harness[vf.HarnessConfig]):
    """One request a turn, from this process: verifiers' own harnesses start a program for each."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self, ctx: vf.ModelContext, trace: vf.Trace, runtime: vf.Runtime, endpoint: str, secret: str,
        mcp_urls: dict[str, str], data: vf.TaskData,
    ) -> vf.ProgramResult:  # fmt: skip
        """Ask for the next reply to the conversation; verifiers records it on its way."""
        system, prompt = self.resolve_prompt(data)
        said = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else map(message_to_wire, prompt or ())
        messages: Any = [*([{"role": "system", "content": system}] if system else []), *said]
        try:
            connection = DefaultAsyncHttpxClient(verify=_certificates())
            async with AsyncOpenAI(base_url=endpoint, api_key=secret, http_client=connection) as client:
                await client.chat.completions.create(model=ctx.model, messages=messages)
        except OpenAIError as error:
            return vf.ProgramResult(exit_code=1, stdout="", stderr=str(error))
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


@cache
def _certificates() -> ssl.SSLContext:
    """Read them once: a third of a second."""
    return ssl.create_default_context()


class GameEnvConfig(vf.EnvConfig):
    """Who plays, under `--env.agent`."""

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())


class GameEnv(vf.Env[GameEnvConfig]):
    """One episode: the observation is the user's message, the last line of the reply is the action.

    The reward is `score`, 1.0 for a win; the metrics are `won`, `steps` and `inadmissible`, a number of actions.
    """

    async def run(self, task: GameTask, agents: vf.Agents) -> None:
        """Play one episode of a task. Raises DataError for a task that the data does not have."""
        assert isinstance(self.taskset, GameTaskset)
        episode = self.taskset.shared.episode()
        text = episode.start(self.taskset.shared.task(task.data.split, task.data.game))
        steps = inadmissible = 0
        async with agents.agent.interaction(task) as interaction:
            while not episode.done:
                segment = await interaction.turn(text)
                if segment.terminated:
                    break
                text = episode.act(last_line(segment.last_reply))
                steps += 1
                inadmissible += episode.last is not None and not episode.last.admissible
        trace = interaction.trace
        trace.record_reward("score", episode.score)
        trace.record_metrics({"won": episode.won, "steps": steps, "inadmissible": inadmissible})


def last_line(reply: str) -> str:
    """Read the action of a reply; an empty one is an action that nothing answers to.

    >>> last_line("The mug may be there.\\n\\ngo to desk 1 ")
    'go to desk 1'
    """
    return next((line.strip() for line in reversed(reply.splitlines()) if line.strip()), "")
