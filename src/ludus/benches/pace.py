"""The world of `ludus bench service`: it says the same after every action, and each step takes so long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ludus.envs.world import Split
from ludus.types import Message, Step, Task

SAYS = "You are not carrying anything"


@dataclass(frozen=True)
class Pace:
    """State: the number of steps.

    waits     seconds a step, as for an answer from elsewhere: other sessions go on
    computes  seconds of processor a step: nothing else runs in this process
    """

    waits: float = 0.0
    computes: float = 0.0
    name: str = "pace"

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [Task(f"{self.name}-{split}", (Message("system", "Act."),), env=self.name)]

    async def reset(self, task: Task, seed: int) -> Step:
        return Step(0, SAYS)

    async def step(self, state: int, action: str) -> Step:
        if self.waits:
            await asyncio.sleep(self.waits)
        until = time.thread_time() + self.computes
        while self.computes and time.thread_time() < until:
            pass
        return Step(state + 1, SAYS)
