"""The servers of AgentGym (arXiv:2406.04151, 2509.08755) as environments.

env = AgentGym("http://10.0.0.6:36001", {"train": range(374), "test": range(374, 474)})
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import httpx

from ludus.envs.service.http import Link, ServerFault, authorization, pause, refusal
from ludus.envs.service.wire import dumps
from ludus.envs.world import Split, action_of
from ludus.types import CannotFork, End, Message, Step, Task


class Dialect(NamedTuple):
    """What a server calls things.

    session  the field with the session's number
    item     the field of /reset with the task's number
    create   a field of /create that wants the task's number as well; "" for none
    """

    session: str
    item: str
    create: str = ""


PLAIN = Dialect("id", "data_idx")
WEBARENA = Dialect("env_idx", "idx")
SEARCHQA = Dialect("env_idx", "id", "id")


class GymState(NamedTuple):
    number: int
    turn: int


@dataclass(frozen=True)
class AgentGym:
    """An original server, or one of ours through the same routes.

    Those servers have no list of tasks, no seeds and no turns: the numbers of the items are given here, a seed is sent
    (and passed over by theirs), and a step whose answer was lost is lost, as nobody can tell whether it was made.

    items    split -> numbers of its items
    prompt   what opens every conversation (AgentGym keeps it in its clients)
    act      a message of the policy to the text that the server is sent
    success  the `score`, or where there is none the `reward`, from which on an episode that is done counts as solved
    scale    what rewards are multiplied with (0.01 for ScienceWorld)
    """

    url: str
    items: Mapping[Split, Sequence[int]]
    name: str = "agentgym"
    dialect: Dialect = PLAIN
    prompt: tuple[Message, ...] = ()
    act: Callable[[str], str] = action_of
    success: float = 1.0
    scale: float = 1.0
    token: str = field(default="", repr=False)
    timeout: float = 300.0
    retries: int = 5

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return tuple(
            Task(f"{self.name}-{split}-{item}", self.prompt, env=self.name, extras={"item": item})
            for item in self.items[split]
        )

    async def reset(self, task: Task, seed: int) -> Step:
        match task.extras:
            case {"item": int(item)} if task.env == self.name:
                pass
            case _:
                raise ValueError(
                    f"task {task.id!r} with extras {dict(task.extras)} is none of {self.name}; "
                    "take tasks from env.tasks('train') or env.tasks('test')"
                )
        dialect = self.dialect
        body = {dialect.create: item} if dialect.create else None
        made = await self._post("create", body)
        number = made if isinstance(made, int) else made[dialect.session]
        state = GymState(number, 0)
        self._turns[number] = 0
        try:
            told = await self._post(
                "reset", {dialect.session: number, dialect.item: item, "seed": seed}
            )
            observation = told if isinstance(told, str) else _text(told["observation"])
        except BaseException:
            await self.close(state)
            raise
        return Step(state, observation)

    async def step(self, state: GymState, action: str) -> Step:
        now = self._turns.get(state.number)
        if now != state.turn:
            where = "closed" if now is None else f"at step {now}"
            raise ValueError(
                f"session {state.number} is {where}, not at step {state.turn}; call reset for a new one"
            )
        self._turns[state.number] = state.turn + 1
        told = await self._post(
            "step", {self.dialect.session: state.number, "action": self.act(action)}
        )
        reward = float(told["reward"])
        end, info = None, told.get("info")
        if isinstance(info, Mapping) and info.get("end") in set(End):  # one of our servers
            end = End(info["end"])
        elif told.get("done") or told.get("terminated"):
            score = float(told.get("score", reward))
            end = End.SOLVED if score >= self.success else End.FAILED
        elif told.get("truncated"):
            end = End.OUT_OF_TURNS
        after = GymState(state.number, state.turn + 1)
        return Step(after, _text(told["observation"]), reward * self.scale, end)

    async def fork(self, state: GymState) -> GymState:
        raise CannotFork(f"{self.name} at {self.url}: AgentGym's routes cannot copy a session")

    async def close(self, state: GymState) -> None:
        if self._turns.pop(state.number, None) is None:
            return
        try:
            await self._post("close", {self.dialect.session: state.number})
        except ServerFault as fault:
            if fault.status not in (404, 405, 422):  # some of the original servers cannot close
                raise

    @cached_property
    def _turns(self) -> dict[int, int]:
        """Steps made by each open session: the servers do not know whether a state is the last one."""
        return {}

    @cached_property
    def _link(self) -> Link:
        return Link(self.url, authorization(self.token), self.timeout)

    async def _post(self, path: str, body: Any) -> Any:
        client = await self._link.client()
        content = b"" if body is None else dumps(body)
        for attempt in range(self.retries + 1):
            try:
                came = await client.post(path, content=content)
            except httpx.ConnectError as error:  # nothing was sent, so nothing is done twice
                if attempt == self.retries:
                    raise ServerFault(0, f"no server answers at {self.url} ({error})") from error
            except httpx.ReadTimeout as error:
                raise TimeoutError(
                    f"{self.url}/{path} took more than {self.timeout:g} s"
                ) from error
            else:
                if came.status_code not in (429, 503) or attempt == self.retries:
                    break
            await asyncio.sleep(pause(attempt))
        told = came.json() if came.status_code == 200 else {"error": refusal(came.content)}
        if isinstance(told, dict) and "error" in told:  # with code 200 in the original servers
            raise ServerFault(came.status_code, f"{self.url}/{path}: {told['error']}")
        return told


def _text(observation: Any) -> str:
    """WebArena answers with an object that has its text inside."""
    if isinstance(observation, Mapping):
        return str(observation.get("text", observation))
    return str(observation)
