"""The world of `ludus bench faults`, as its server has it; a server reads this file and no torch."""

from __future__ import annotations

from ludus.envs.faulty import Faulty
from ludus.envs.small.forks import Forks

world = Forks(forks=2, fill=0, needed=(0, 1), right=1)


def flaky(fails: float = 0.1, hangs: float = 0.05, seed: int = 0) -> Faulty:
    return Faulty(world, fails, hangs, seed)
