"""What the adapters share: the state of an episode that lives in an object of somebody else's.

Such an object changes under every step. A state names its moment: stepping it again after it was left is refused, and
a fork of it is a copy of the object, or a second one that is led the same way.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ludus.envs.world import Split, refuse_if_over
from ludus.types import CannotFork, Env, Key, Part, Task


@dataclass
class Held:
    """The object, and how many steps it has seen."""

    thing: Any
    at: int = 0


@dataclass(frozen=True)
class Live:
    """A moment of an episode: how it came about, and the object that is there now. Equal where the way was equal."""

    task: Task
    seed: int
    actions: tuple[str, ...] = ()
    seen: str | tuple[Part, ...] = ""
    over: bool = False
    held: Held = field(default_factory=lambda: Held(None), compare=False, repr=False)

    def enter(self) -> Any:
        """The object, for one step; an error where the episode is over or this moment has passed."""
        refuse_if_over(self.over)
        if self.held.at != len(self.actions):
            raise ValueError(
                f"this state was left after {len(self.actions)} actions, and what it holds has seen {self.held.at}; "
                "take `await env.fork(state)` before the first step from it"
            )
        self.held.at += 1
        return self.held.thing

    def after(self, action: str, seen: str | tuple[Part, ...], over: bool) -> Live:
        return replace(self, actions=(*self.actions, action), seen=seen, over=over)


async def forked(env: Env, state: Live, copied: Callable[[Any], Any] = copy.deepcopy) -> Live:
    """A copy of the object, or, where it cannot be copied, another one led through the same actions."""
    if state.held.at == len(state.actions):
        try:
            return replace(state, held=Held(copied(state.held.thing), state.held.at))
        except TimeoutError:  # the engine's alarm
            raise
        except Exception:  # whatever an object says on being copied, there is the other way
            pass
    step = await env.reset(state.task, state.seed)
    try:
        for action in state.actions:
            step = await env.step(step.state, action)
        if step.state != state:
            raise CannotFork(
                f"{env.name} answered {str(step.state.seen)[:200]!r} where it had answered "
                f"{str(state.seen)[:200]!r}: the same actions do not lead to the same state, so it can be neither "
                "copied nor replayed"
            )
    except BaseException:
        close = getattr(env, "close", None)
        if close is not None:
            await close(step.state)
        raise
    return step.state


def not_copied(thing: Any) -> Any:
    """For `forked`, where the object is a connection, or a copy of it would begin anew."""
    raise CannotFork(f"a {type(thing).__name__} has no copy")


def seed_of(name: str, split: Split, index: int, seed: int = 0) -> int:
    """31 bits for a package's own generator, different in both splits."""
    return Key(seed, (name, split, index)).integer() % 2**31


async def maybe(result: Any | Awaitable[Any]) -> Any:
    """The result of a function that may be async."""
    return await result if inspect.isawaitable(result) else result


class Background:
    """Keeps an async context open in a task of its own, so that it may be left from another task than it was entered.

    Some clients (those on anyio) insist that the task which opens them closes them; an episode has no such task.
    """

    def __init__(self, context: Any) -> None:
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(context))

    async def _hold(self, context: Any) -> None:
        try:
            async with context as opened:
                if not self._ready.done():
                    self._ready.set_result(opened)
                await self._stop.wait()
        except Exception as error:
            if not self._ready.done():
                self._ready.set_exception(error)

    async def opened(self) -> Any:
        try:
            return await asyncio.shield(self._ready)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._stop.set()
        if not self._ready.done():
            self._task.cancel()
        _, late = await asyncio.wait([self._task], timeout=10)
        for task in late:
            task.cancel()
