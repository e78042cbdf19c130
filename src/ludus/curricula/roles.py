"""Which role learns in a step, and which policy plays which role.

Both are functions of the step alone, so a run that is stopped and resumed keeps its phase.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alternating:
    """One role learns first for `warmup` steps, then all in turn: RL Tango, arXiv:2505.15034.

    turns  (role, steps) in order, again and again; ("generator", 3), ("verifier", 1) in the paper
    first  the role of the warm-up
    """

    turns: tuple[tuple[str, int], ...]
    first: str = ""
    warmup: int = 0

    def __post_init__(self) -> None:
        if not self.turns or any(steps < 1 for _, steps in self.turns) or self.warmup < 0:
            raise ValueError(
                f"turns={self.turns}, warmup={self.warmup}; give each role 1 step or more, such as "
                '(("generator", 3), ("verifier", 1))'
            )

    def __call__(self, step: int) -> str:
        """The role that learns in this step, counted from 1."""
        _check(step)
        if step <= self.warmup:
            return self.first
        place = (step - self.warmup - 1) % sum(steps for _, steps in self.turns)
        for role, steps in self.turns:
            place -= steps
            if place < 0:
                return role
        raise AssertionError("unreachable: place is below the sum")

    def learnt(self, role: str, step: int) -> int:
        """How many steps `role` has learnt before this one: the argument of its own schedules."""
        return sum(self(earlier) == role for earlier in range(1, step))


@dataclass(frozen=True)
class Swapping:
    """Policies change roles every `every` steps; 0 never. CORY, arXiv:2410.06101.

    What goes with the policy: its weights, value head included. What a swap starts afresh for both,
    as in the release, is `RESTARTED`; what stays with the role is its prompt.
    """

    roles: tuple[str, ...] = ("pioneer", "observer")
    every: int = 5

    RESTARTED = ("optimiser", "KL coefficient", "statistics of the reward")

    def __call__(self, step: int) -> dict[str, int]:
        """Role -> index of the policy that plays it in this step, counted from 1."""
        _check(step)
        swaps = (step - 1) // self.every if self.every else 0
        count = len(self.roles)
        return {role: (place + swaps) % count for place, role in enumerate(self.roles)}

    def restarts(self, step: int) -> bool:
        """Whether the policies have just changed roles, before this step."""
        _check(step)
        return step > 1 and self(step) != self(step - 1)


def _check(step: int) -> None:
    if step < 1:
        raise ValueError(f"there is no training step {step}; steps are counted from 1")
