"""A guard around any environment: one that hangs, dies or lies ends its own rollout, never the run.

Every call has a deadline, kept in two ways: time spent waiting (a server, a subprocess) is cut by asyncio, and time
spent computing in this thread (a loop that never ends) by an alarm signal, where the platform and the thread have one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from types import FrameType
from typing import Any, Literal, Protocol

from ludus.types import CannotFork, End, Env, Image, Step, Task


class EnvFault(Exception):
    """What an environment did wrong: the honest end of the rollout, and a message for the log."""

    def __init__(self, end: End, message: str) -> None:
        super().__init__(message)
        self.end = end


class Waiting(Protocol):
    """Told when a call starts to wait for something outside, and awaited before its result joins again."""

    def leave(self) -> int: ...
    async def rejoin(self, ticket: int) -> None: ...


class Guarded:
    """`env` with a deadline in seconds for every call, and with its answers checked."""

    def __init__(self, env: Env, deadline: float = 60.0, waiting: Waiting | None = None) -> None:
        self.env, self.deadline, self.waiting = env, deadline, waiting

    @property
    def name(self) -> str:
        return self.env.name

    def tasks(self, split: Literal["train", "test"] = "train") -> Sequence[Task]:
        return self.env.tasks(split)

    async def reset(self, task: Task, seed: int) -> Step:
        return checked(await self._call("reset", lambda: self.env.reset(task, seed)), self.name)

    async def step(self, state: Any, action: str) -> Step:
        return checked(await self._call("step", lambda: self.env.step(state, action)), self.name)

    async def fork(self, state: Any) -> Any:
        """A copy of the state; CannotFork is an honest answer, and no fault."""
        fork: Any = getattr(self.env, "fork", None)
        if fork is None:
            raise CannotFork(f"{self.name} has no fork: its states cannot be copied")
        return await self._call("fork", lambda: fork(state))

    async def close(self, state: Any) -> None:
        close = getattr(self.env, "close", None)
        if close is not None:
            await self._call("close", lambda: close(state))

    async def leave(self, state: Any) -> None:
        """Close at the end of a rollout: a fault is logged and no more, since what was played stays what it was."""
        try:
            await self.close(state)
        except EnvFault as fault:
            logging.getLogger(__name__).warning("%s", fault)

    async def _call(self, what: str, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        sliced = _Sliced(make, self.deadline, self.waiting)
        try:
            async with asyncio.timeout(self.deadline):
                result = await sliced
        except (
            TimeoutError
        ) as error:  # of this guard, or with its own words of the world or its server
            own = str(error) or f"took longer than its deadline of {self.deadline:g} s"
            raise EnvFault(End.ENV_TIMED_OUT, f"{self.name}.{what}: {own}") from error
        except CannotFork:
            raise
        except Exception as error:  # whatever an environment raises is its own fault, not the run's
            message = f"{self.name}.{what} raised {type(error).__name__}: {error}"
            raise EnvFault(End.ENV_CRASHED, message) from error
        finally:
            if sliced.ticket is not None and self.waiting is not None:
                await self.waiting.rejoin(sliced.ticket)
        return result


def checked(step: Any, name: str) -> Step:
    """The step, if it is one; else an EnvFault that says what came and what was wanted."""

    def fault(came: str, wanted: str) -> EnvFault:
        return EnvFault(End.ENV_CRASHED, f"{name} returned {came}; wanted {wanted}")

    if not isinstance(step, Step):
        raise fault(f"a {type(step).__name__}", "a ludus.types.Step")
    parts = (step.observation,) if isinstance(step.observation, str) else step.observation
    if not isinstance(parts, tuple) or not all(isinstance(part, str | Image) for part in parts):
        raise fault(
            f"an observation of type {type(step.observation).__name__}",
            "text, or a tuple of text and images",
        )
    if step.end is not None and not isinstance(step.end, End):
        raise fault(f"end={step.end!r}", "None or a ludus.types.End")
    try:
        finite = math.isfinite(step.reward)
    except (TypeError, ValueError):
        finite = False
    if not finite:
        raise fault(f"reward={step.reward!r}", "a finite number")
    return step


class _Sliced:
    """Awaits a call slice by slice: an alarm is armed while it computes and disarmed while it waits."""

    def __init__(
        self, make: Callable[[], Coroutine[Any, Any, Any]], deadline: float, waiting: Waiting | None
    ) -> None:
        self.make, self.deadline, self.waiting = make, deadline, waiting
        self.ticket: int | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        call = self.make().__await__()
        send: Any = None
        error: BaseException | None = None
        while True:
            try:
                with _alarm(self.deadline):
                    future = call.send(send) if error is None else call.throw(error)
            except StopIteration as stop:
                return stop.value
            if self.ticket is None and self.waiting is not None:
                self.ticket = self.waiting.leave()
            send = error = None
            try:
                send = yield future
            except (
                BaseException
            ) as thrown:  # a cancellation travels into the call like anywhere else
                error = thrown


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in this thread after `seconds` of wall time; a no-op where there is no such signal."""
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not usable:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
