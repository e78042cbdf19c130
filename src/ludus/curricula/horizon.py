"""How many turns an episode may last, by training step. ScalingInter-RL, arXiv:2509.08755.

Short episodes first: rewards are near and training is stable; then longer ones, for tasks that need
them. The limit is a function of the step number alone, never of a counter, so a run that is stopped
and resumed follows the same schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Staged:
    """limits[0] turns for `every` steps, then limits[1], ...; the last one stays."""

    limits: tuple[int, ...]
    every: int

    def __post_init__(self) -> None:
        if not self.limits:
            raise ValueError(
                "a horizon needs at least one turn limit; for instance staged([10, 20, 30], every=100)"
            )
        if any(limit < 1 for limit in self.limits):
            raise ValueError(f"turn limits are {list(self.limits)}; each must be at least 1")
        if self.every < 1:
            raise ValueError(
                f"the limit would change every {self.every} steps; give every=1 or more"
            )

    def __call__(self, step: int) -> int:
        if step < 1:
            raise ValueError(f"there is no training step {step}; steps are counted from 1")
        return self.limits[min((step - 1) // self.every, len(self.limits) - 1)]


def staged(limits: Sequence[int], *, every: int) -> Staged:
    """The limits in turn, each for `every` steps: staged([10, 20, 30], every=100)."""
    return Staged(tuple(limits), every)


def fixed(turns: int) -> Staged:
    """The same limit at every step."""
    return Staged((turns,), every=1)
