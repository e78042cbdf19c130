"""A world that runs elsewhere, an environment like any other.

    env = Remote("http://10.0.0.5:8765")           # served there by `ludus env serve`

A state is the name of a session and how many steps it has made. Acting twice in one state is refused; `fork` it first,
where the served world can be copied.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import aiohttp
import httpx

from ludus.envs.service.http import TOKEN, Link, ServerFault, authorization, lean, pause, refusal
from ludus.envs.service.wire import dumps, step_in, task_in
from ludus.envs.world import Split
from ludus.types import CannotFork, Explained, Step, Task

BATCH = 1024  # calls in one request
STARTS = 5  # retries of the first question: a mistyped address should not take long to tell


class State(NamedTuple):
    """The session, and the number of steps that led here."""

    session: str
    turn: int


@dataclass(frozen=True)
class Remote:
    """A world behind `ludus env serve`. What waits at the same moment travels in one request.

    A call that got no answer is repeated; the server knows it by its turn (or its key) and does nothing twice.

    token    of the server; if empty, what the variable LUDUS_ENV_TOKEN holds
    timeout  seconds without a sign of life from the server, after which a call is given up
    retries  of a call that the server did not answer, or had no room for; waits of 0.25, 0.5, 1 ... 8 s between: with
             ten, a server that is started again is waited for over half a minute, as far as the caller's deadline lets
    """

    url: str
    token: str = field(default="", repr=False)
    timeout: float = 120.0
    retries: int = 10

    @property
    def name(self) -> str:
        return self._about["name"]

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return self._tasks[split]

    async def reset(self, task: Task, seed: int) -> Step:
        split, index = self._place(task)
        key = uuid.uuid4().hex
        return self._step(
            await self._call(
                call="reset", split=split, index=index, seed=seed, key=key, task=task.id
            )
        )

    async def step(self, state: State, action: str) -> Step:
        return self._step(
            await self._call(call="step", session=state.session, turn=state.turn, action=action)
        )

    async def fork(self, state: State) -> State:
        told = await self._call(call="fork", session=state.session, turn=state.turn)
        return State(told["session"], told["turn"])

    async def close(self, state: State) -> None:
        """A server that cannot be reached has lost the session, or will close it as idle: that is no fault."""
        with contextlib.suppress(ServerFault, TimeoutError):
            await self._call(call="close", session=state.session)

    # ------------------------------------------------------------------------------ what the server has

    @cached_property
    def _about(self) -> dict[str, Any]:
        return self._get("about")

    @cached_property
    def _tasks(self) -> dict[Split, tuple[Task, ...]]:
        there: dict[Split, tuple[Task, ...]] = {}
        splits: tuple[Split, ...] = ("train", "test")
        for split in splits:
            told: list[Any] = []
            while len(told) < self._about[split]:
                page = self._get("tasks", split=split, start=len(told))
                if not page:
                    raise ServerFault(
                        200, f"{self.url} has fewer tasks than it said; was it restarted?"
                    )
                told += page
            there[split] = tuple(map(task_in, told))
        return there

    @cached_property
    def _places(self) -> dict[str, tuple[Split, int]]:
        return {
            task.id: (split, index)
            for split, tasks in self._tasks.items()
            for index, task in enumerate(tasks)
        }

    def _place(self, task: Task) -> tuple[Split, int]:
        place = self._places.get(task.id)
        if place is not None:
            split, index = place
            known = self._tasks[split][index]
            if (known.env, known.extras) == (task.env, task.extras):
                return place
        raise ValueError(
            f"task {task.id!r} with extras {dict(task.extras)} is none of {self.name} at {self.url}; "
            "take tasks from env.tasks('train') or env.tasks('test')"
        )

    def _get(self, path: str, **query: Any) -> Any:
        """Asked once, before anything is played; a server that is still starting is waited for."""
        headers, retries = authorization(self.token), min(self.retries, STARTS)
        for attempt in range(retries + 1):
            try:
                came = httpx.get(
                    f"{self.url.rstrip('/')}/{path}",
                    params=query,
                    headers=headers,
                    timeout=self.timeout,
                )
                break
            except httpx.TransportError as error:
                if attempt == retries:
                    raise Explained(
                        f"no environment server answers at {self.url} ({type(error).__name__}: {error}); "
                        "start one with\n"
                        "  ludus env serve FILE.py:NAME"
                    ) from error
                time.sleep(pause(attempt))
        if came.status_code == 401:
            raise Explained(
                f"{self.url} wants its token: {refusal(came.content)}\n"
                f"  set {TOKEN}, or give Remote(url, token=...)"
            )
        if came.status_code != 200:
            raise ServerFault(came.status_code, f"{self.url}/{path}: {refusal(came.content)}")
        return came.json()

    # ------------------------------------------------------------------------------ calls, many at a time

    @cached_property
    def _link(self) -> Link:
        return Link(self.url, authorization(self.token), self.timeout, lean)

    @cached_property
    def _waiting(self) -> list[_Waiting]:
        return []

    async def _call(self, **call: Any) -> dict[str, Any]:
        """Queue a call; what is queued is sent when everything that runs now has queued its own."""
        loop = asyncio.get_running_loop()
        for attempt in range(self.retries + 1):
            answer: asyncio.Future[dict[str, Any]] = loop.create_future()
            waiting = self._waiting
            if not waiting or waiting[0].answer.get_loop() is not loop:
                waiting.clear()  # of a loop that ended before it could send
                loop.call_soon(self._flush)
            waiting.append(_Waiting(call, answer))
            try:
                told = await answer
            except aiohttp.ClientError as error:
                if isinstance(error, aiohttp.SocketTimeoutError):
                    raise TimeoutError(f"{self.url} was silent for {self.timeout:g} s") from error
                if attempt == self.retries:
                    raise ServerFault(
                        0, f"no answer from {self.url} ({type(error).__name__}: {error})"
                    ) from error
            else:
                if "retry_after" not in told or attempt == self.retries:
                    return _accepted(told)
            await asyncio.sleep(pause(attempt))
        raise AssertionError("the last attempt returns or raises")

    def _flush(self) -> None:
        waiting, self._waiting[:] = list(self._waiting), []
        for start in range(0, len(waiting), BATCH):
            self._link.keep(self._send(waiting[start : start + BATCH]))

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        """One request. Every answer is passed on as its line arrives, or else what went wrong."""
        body = dumps({"calls": [one.call for one in batch]})
        error: Exception = aiohttp.ClientPayloadError("the answer broke off")
        try:
            client = await self._link.client()
            async with client.post("calls", data=body) as response:
                if response.status != 200:
                    told: dict[str, Any] = {"status": response.status}
                    told["error"] = refusal(await response.read())
                    if "retry-after" in response.headers:
                        told["retry_after"] = response.headers["retry-after"]
                    for one in batch:
                        one.done(told)
                    return
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for told in map(json.loads, lines):
                        batch[told["at"]].done(told)
        except Exception as problem:  # belongs to those who wait, not to this task
            error = problem
        for one in batch:
            if not one.answer.done():
                one.answer.set_exception(error)

    @staticmethod
    def _step(told: Mapping[str, Any]) -> Step:
        return step_in(told, State(told["session"], told["turn"]))


class _Waiting(NamedTuple):
    call: dict[str, Any]
    answer: asyncio.Future[dict[str, Any]]

    def done(self, told: dict[str, Any]) -> None:
        if not self.answer.done():  # its caller may have given up
            self.answer.set_result(told)


def _accepted(told: dict[str, Any]) -> dict[str, Any]:
    status, message = told["status"], told.get("error", "")
    if status == 200:
        return told
    if status == 504:
        raise TimeoutError(message)
    if status == 501:
        raise CannotFork(message)
    if status in (409, 422):
        raise ValueError(message)
    raise ServerFault(status, message)
