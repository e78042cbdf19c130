"""Casts: which policy plays which role in a step, and who learns in it (`ludus.types.Cast`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Alternating:
    """One role learns first for `warmup` steps, then all in turn: RL Tango, arXiv:2505.15034.

    turns  (role, steps) in order, again and again; ("generator", 3), ("verifier", 1) in the paper
    first  the role of the warm-up
    own    the role that the recipe's own policy plays
    """

    turns: tuple[tuple[str, int], ...]
    first: str = ""
    warmup: int = 0
    own: str = ""

    def __post_init__(self) -> None:
        if not self.turns or any(steps < 1 for _, steps in self.turns) or self.warmup < 0:
            raise ValueError(
                f"turns={self.turns}, warmup={self.warmup}; give each role 1 step or more, such as "
                '(("generator", 3), ("verifier", 1))'
            )
        roles = [role for role, _ in self.turns]
        if (self.warmup and self.first not in roles) or (self.own and self.own not in roles):
            raise ValueError(
                f"first={self.first!r} (of {self.warmup} steps of warm-up), own={self.own!r}; each must be one of the "
                f"roles {', '.join(map(repr, roles))}"
            )

    def learning(self, step: int) -> str:
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
        return sum(self.learning(earlier) == role for earlier in range(1, step))

    def plays(self, step: int) -> dict[str, str]:
        """Each role is played by the policy of its name; that of `own` by the recipe's."""
        return {role: "policy" if role == self.own else role for role, _ in self.turns}

    def learns(self, step: int) -> tuple[str]:
        return (self.plays(step)[self.learning(step)],)

    def restarts(self, step: int) -> bool:
        return False


@dataclass(frozen=True)
class Swapping:
    """Policies change roles every `every` steps; 0 never. CORY, arXiv:2410.06101.

    What goes with the policy: its weights, value head included. What a swap starts afresh for both,
    as in the release, is `RESTARTED`; what stays with the role is its prompt.

    policies  who plays the first role at the beginning, who the second, and so on; "policy" is the recipe's own
    """

    roles: tuple[str, ...] = ("pioneer", "observer")
    policies: tuple[str, ...] = ("policy", "other")
    every: int = 5

    RESTARTED = ("optimiser", "KL coefficient", "statistics of the reward")

    def __post_init__(self) -> None:
        if len(self.roles) != len(self.policies):
            raise ValueError(
                f"{len(self.roles)} roles for {len(self.policies)} policies; give one each"
            )

    def plays(self, step: int) -> dict[str, str]:
        """Role -> name of the policy that plays it in this step, counted from 1."""
        _check(step)
        swaps = (step - 1) // self.every if self.every else 0
        count = len(self.roles)
        return {role: self.policies[(at + swaps) % count] for at, role in enumerate(self.roles)}

    def learns(self, step: int) -> tuple[str, ...]:
        return self.policies

    def restarts(self, step: int) -> bool:
        """Whether the policies have just changed roles, before this step."""
        _check(step)
        return step > 1 and self.plays(step) != self.plays(step - 1)


@dataclass(frozen=True)
class Fixed:
    """Everybody keeps a role, and these learn in every step; frozen players are in `roles` alone.

    roles  role -> name of the policy that plays it
    """

    roles: Mapping[str, str]
    learners: tuple[str, ...] = ("policy",)

    def plays(self, step: int) -> Mapping[str, str]:
        return self.roles

    def learns(self, step: int) -> tuple[str, ...]:
        return self.learners

    def restarts(self, step: int) -> bool:
        return False


def _check(step: int) -> None:
    if step < 1:
        raise ValueError(f"there is no training step {step}; steps are counted from 1")
