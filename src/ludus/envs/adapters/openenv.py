"""An environment behind an OpenEnv server (package `openenv`, before 0.4 `openenv-core`).

    echo = OpenEnv("http://localhost:8000", act=lambda text: {"message": text})

Each episode has its own connection, and so its own session. What is sent is a mapping, what comes back another one:
`act` makes the first from what the policy wrote (a ValueError of it is shown to the policy and no step is taken), and
`look` makes text of the second. The server says when an episode is over; `solved` says whether that was success.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ludus.envs.adapters.live import Held, Live, forked, not_copied, seed_of
from ludus.envs.world import Split, place_of
from ludus.types import End, Explained, Message, Step, Task

REFUSED = "VALIDATION_ERROR"  # how the server names an action that it cannot read


def told(observation: Mapping[str, Any]) -> str:
    """Line by line what it says, without what only the server needs."""
    rest = {k: v for k, v in observation.items() if k not in ("done", "reward", "metadata")}
    lines = [f"{k}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in rest.items()]
    return "\n".join(lines)


def paid(reward: float, observation: Mapping[str, Any]) -> bool:
    return reward > 0


@dataclass(frozen=True)
class OpenEnv:
    """url  of the server, http or ws

    act      what the policy wrote -> the action's fields
    solved   (reward of the last step, its observation) -> whether the end was success
    waits    seconds for one answer of the server; the engine's own deadline holds as well
    """

    url: str
    act: Callable[[str], Mapping[str, Any]]
    look: Callable[[Mapping[str, Any]], str] = told
    solved: Callable[[float, Mapping[str, Any]], bool] = paid
    instruction: str = ""
    train: int = 100
    test: int = 50
    waits: float = 60.0
    name: str = "openenv"

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        prompt = (Message("system", self.instruction),) if self.instruction else ()
        count = {"train": self.train, "test": self.test}[split]
        return [
            Task(
                f"{self.name}-{split}-{i}",
                prompt,
                env=self.name,
                extras={"split": split, "index": i},
            )
            for i in range(count)
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """The server gets a seed that the task fixes; whether it heeds it is up to its environment."""
        try:
            from openenv.core import GenericEnvClient
        except ImportError as error:
            raise Explained("OpenEnv is not installed; type: pip install openenv") from error
        split, index = place_of(self, task, {"train": self.train, "test": self.test})
        client = GenericEnvClient(base_url=self.url, message_timeout_s=self.waits)
        try:
            await client.connect()
            result = await client.reset(seed=seed_of(self.name, split, index))
            seen = self.look(result.observation)
        except BaseException:
            await client.close()
            raise
        return Step(Live(task, seed, (), seen, held=Held(client)), seen)

    async def step(self, state: Live, action: str) -> Step:
        client = state.enter()
        try:
            made = dict(self.act(action))
        except ValueError as error:
            return _refused(state, action, error)
        try:
            result = await client.step(made)
        except RuntimeError as error:
            if REFUSED not in str(error):
                raise
            return _refused(state, action, error)
        reward = float(result.reward or 0.0)
        seen = self.look(result.observation)
        end = None
        if result.done:
            end = End.SOLVED if self.solved(reward, result.observation) else End.FAILED
        return Step(state.after(action, seen, end is not None), seen, reward, end, {"valid": True})

    async def fork(self, state: Live) -> Live:
        """A second session led the same way; CannotFork where the server then answers differently."""
        return await forked(self, state, not_copied)

    async def close(self, state: Live) -> None:
        await state.held.thing.close()


def _refused(state: Live, action: str, error: Exception) -> Step:
    seen = f"No such action. {error}"[:1000]
    return Step(state.after(action, seen, False), seen, info={"valid": False})
