"""Rewards of a critic: does it judge rightly, and does its advice help? Critique-RL, arXiv:2510.24320.

An actor answered, the critic criticises and ends in a verdict, the frozen actor tries again. Stage
one rewards the verdict alone; stage two the second attempt, and keeps the verdict in the reward so
that judging does not decay. The release does not add the two: it lets a wrong verdict cost -1
whatever the second attempt was, so judging is a gate. Both forms are here, as `mode`.

    correct  whether the first attempt was right       refined  whether the second one is
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ludus.types import Group, Rollout

VERDICT = "verdict"  # in Rollout.signals of a critique
Verdict = Literal["correct", "wrong"]
Mode = Literal["paper", "released"]

# What comes before stays on its line: over newlines, a text of blank lines would take the square of its length.
_VERDICT = re.compile(
    r"^(?:[*#]|[^\S\n])*correctness of the final answer:[\s*]*(correct|wrong)\b[\s*.]*$",
    re.I | re.M,
)


def verdict(critique: str) -> Verdict | None:
    """The verdict line of a critique; None if there is none, or if two lines contradict each other.

    A line of its own, "Correctness of the final answer: Wrong", so that an instruction which is
    repeated in the critique ("... answer: Correct or Wrong") is no verdict.
    """
    found = {match.lower() for match in _VERDICT.findall(critique)}
    return ("correct" if "correct" in found else "wrong") if len(found) == 1 else None


def judged_rightly(verdict: Verdict | None, correct: bool) -> bool:
    """Whether the verdict is the truth; an absent one never is."""
    return verdict is not None and (verdict == "correct") == correct


def refine(correct: bool, refined: bool) -> float:
    """1 if the second attempt is right, also where it repeats a right first one."""
    return float(refined)


def delta(correct: bool, refined: bool) -> float:
    """1 for a mistake mended, -1 for one made, 0 else."""
    return float(refined) - float(correct)


def corrected(correct: bool, refined: bool) -> float:
    """1 for a mistake mended, 0.2 for a right answer kept, 0 else."""
    return (0.2 if correct else 1.0) if refined else 0.0


def stage_one(verdict: Verdict | None, correct: bool, *, mode: Mode = "paper") -> float:
    """1 for a right verdict; else 0 (paper) or -1 (released), also where there is none."""
    right = judged_rightly(verdict, correct)
    return float(right) if mode == "paper" else (1.0 if right else -1.0)


def stage_two(
    verdict: Verdict | None,
    correct: bool,
    indirect: float,
    *,
    weight: float = 0.2,
    mode: Mode = "paper",
) -> float:
    """The indirect reward (`refine`, `delta` or `corrected`), and the verdict.

    paper      indirect + weight [verdict right]
    released   indirect + weight if the verdict is right, else -1
    """
    right = judged_rightly(verdict, correct)
    if mode == "released" and not right:
        return -1.0
    return indirect + weight * right


@dataclass(frozen=True)
class Judging:
    """Stage one as a reward, of the critiques that rollouts.critique_refine made: the verdict alone."""

    mode: Mode = "paper"

    needs = (VERDICT,)
    roles = ("critic",)

    async def __call__(self, groups: Sequence[Group]) -> list[Group]:
        return [
            _paid(group, lambda said, correct, refined: stage_one(said, correct, mode=self.mode))
            for group in groups
        ]


@dataclass(frozen=True)
class Helping:
    """Stage two as a reward: what became of the first answer, and `weight` of the verdict.

    indirect  (first right, second right) -> reward: `refine`, `delta` or `corrected`
    weight    0, with mode "paper", rewards the second answer alone
    """

    indirect: Callable[[bool, bool], float] = refine
    weight: float = 0.2
    mode: Mode = "paper"

    needs = (VERDICT,)
    roles = ("critic",)

    async def __call__(self, groups: Sequence[Group]) -> list[Group]:
        def paid(said: Verdict | None, correct: bool, refined: bool) -> float:
            indirect = self.indirect(correct, refined)
            return stage_two(said, correct, indirect, weight=self.weight, mode=self.mode)

        return [_paid(group, paid) for group in groups]


def _paid(group: Group, reward: Callable[[Verdict | None, bool, bool], float]) -> Group:
    """The group with the rewards of its critiques; the actor's attempts are left as they are."""

    def paid(rollout: Rollout) -> Rollout:
        if VERDICT not in rollout.signals:
            return rollout
        correct, refined = bool(rollout.terms["correct"]), bool(rollout.terms["refined"])
        return replace(rollout, reward=reward(rollout.signals[VERDICT], correct, refined))

    return replace(group, rollouts=tuple(paid(rollout) for rollout in group.rollouts))
