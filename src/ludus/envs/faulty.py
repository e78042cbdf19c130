"""A world in bad weather: some of its calls fail, some never return. What a run makes of that can then be seen.

flaky = Faulty(grid(), fails=0.1, hangs=0.05)
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ludus.envs.world import Split
from ludus.types import CannotFork, Env, Key, Step, Task


class Fault(RuntimeError):
    """What a call raises that was drawn to fail."""


class State(NamedTuple):
    """The state of the world within, and the name under which the next faults are drawn."""

    inner: Any
    key: Key
    turn: int


@dataclass(frozen=True)
class Faulty:
    """`env`, each of whose calls (reset, step, fork) raises with probability `fails` and hangs with `hangs`.

    What is drawn depends on the seed, the task, its world's seed, how often that was reset before, and the turn: not on
    the order in which sessions are served. A hanging call waits until it is cancelled. A call that fails or hangs has
    not touched the world within.
    """

    env: Env
    fails: float = 0.1
    hangs: float = 0.05
    seed: int = 0
    seen: Counter[Key] = field(default_factory=Counter, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.fails >= 0 and self.hangs >= 0 and self.fails + self.hangs <= 1):
            raise ValueError(
                f"fails={self.fails}, hangs={self.hangs}; give probabilities that sum to 1 at most"
            )

    @property
    def name(self) -> str:
        return self.env.name

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return self.env.tasks(split)

    async def reset(self, task: Task, seed: int) -> Step:
        key = self._another(Key(self.seed, ("faulty", task.id, seed)))
        await self._weather(key / "reset")
        return self._step(await self.env.reset(task, seed), key, 0)

    async def step(self, state: State, action: str) -> Step:
        await self._weather(state.key / "step" / state.turn)
        made = await self.env.step(state.inner, action)
        return self._step(made, state.key, state.turn + 1)

    async def fork(self, state: State) -> State:
        fork: Any = getattr(self.env, "fork", None)
        if fork is None:
            raise CannotFork(f"{self.name} has no fork: its states cannot be copied")
        key = self._another(state.key / "fork" / state.turn)
        await self._weather(key)
        return State(await fork(state.inner), key, state.turn)

    async def close(self, state: State) -> None:
        close: Any = getattr(self.env, "close", None)
        if close is not None:
            await close(state.inner)

    def _another(self, key: Key) -> Key:
        """A name of its own for each call that is otherwise the same: the answers of a group share task and seed."""
        self.seen[key] += 1
        return key / self.seen[key]

    async def _weather(self, key: Key) -> None:
        drawn = key.integer() / 2**63
        if drawn < self.fails:
            raise Fault("this call was drawn to fail")
        if drawn < self.fails + self.hangs:
            await asyncio.Event().wait()

    @staticmethod
    def _step(made: Step, key: Key, turn: int) -> Step:
        return Step(
            State(made.state, key, turn), made.observation, made.reward, made.end, made.info
        )
