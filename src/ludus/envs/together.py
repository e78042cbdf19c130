"""Several worlds as one: their tasks, each played where it belongs (`Task.env`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ludus.envs.world import Split, World
from ludus.types import CannotFork, Step, Task


@dataclass(frozen=True)
class Inside:
    """The state of one of the worlds, and which."""

    world: str
    state: Any


@dataclass(frozen=True)
class Together:
    """Worlds of different names; one after the other in `tasks`, so that a curriculum does the mixing.

    Levels of one world are several of it, with a difficulty each: what a curriculum over levels wants.
    """

    worlds: tuple[World, ...]
    name: str = "together"

    def __post_init__(self) -> None:
        names = [world.name for world in self.worlds]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"the worlds are called {names}; give one or more, with different names"
            )

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [task for world in self.worlds for task in world.tasks(split)]

    async def reset(self, task: Task, seed: int) -> Step:
        return _inside(task.env, await self._of(task.env).reset(task, seed))

    async def step(self, state: Inside, action: str) -> Step:
        return _inside(state.world, await self._of(state.world).step(state.state, action))

    async def fork(self, state: Inside) -> Inside:
        fork: Any = getattr(self._of(state.world), "fork", None)
        if fork is None:
            raise CannotFork(f"{state.world} has no fork: its states cannot be copied")
        return Inside(state.world, await fork(state.state))

    async def close(self, state: Inside) -> None:
        if close := getattr(self._of(state.world), "close", None):
            await close(state.state)

    def words(self) -> tuple[str, ...]:
        return tuple(sorted({word for world in self.worlds for word in world.words()}))

    def expert(self, state: Inside) -> str:
        return self._of(state.world).expert(state.state)

    def beginner(self, state: Inside, rng: np.random.Generator) -> str:
        return self._of(state.world).beginner(state.state, rng)

    def _of(self, name: str) -> World:
        for world in self.worlds:
            if world.name == name:
                return world
        names = ", ".join(world.name for world in self.worlds)
        raise ValueError(f"a task names the world {name!r}; here are {names}")


def _inside(world: str, step: Step) -> Step:
    return Step(Inside(world, step.state), step.observation, step.reward, step.end, step.info)
