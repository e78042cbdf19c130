"""Preference pairs from groups of rollouts: which two answers to one task are compared.

Every rule compares rewards inside one group, leaves out rollouts whose end was not the policy's doing (a crash is not
a worse answer), makes no pair of equal rewards, and lets the first in order win where several would do. A pair holds
the rollouts themselves, so what is trained on are the tokens that were sampled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations

from ludus.data.selection import scorable
from ludus.types import Group, Rollout


@dataclass(frozen=True)
class Pair:
    """The better and the worse of two attempts at one task."""

    chosen: Rollout
    rejected: Rollout

    @property
    def gap(self) -> float:
        """By how much the chosen is better, in rewards; negative where the rewards contradict the choice."""
        return self.chosen.reward - self.rejected.reward


def best_worst(group: Group) -> list[Pair]:
    """The highest against the lowest reward: one pair, or none if all are equal. RLHF Workflow, arXiv:2405.07863."""
    rollouts = scorable(group)
    if not rollouts:
        return []
    pair = Pair(  # max and min return the first of equals
        max(rollouts, key=lambda rollout: rollout.reward),
        min(rollouts, key=lambda rollout: rollout.reward),
    )
    return [pair] if pair.gap > 0 else []


def all_pairs(group: Group) -> list[Pair]:
    """Every two of different reward, the better one chosen. MM-RLHF, arXiv:2502.10391. In the group's order."""
    return [
        Pair(one, other)
        for one, other in permutations(scorable(group), 2)
        if one.reward > other.reward
    ]


def agentgym(group: Group, *, least_gap: float = 0.01, least_chosen: float = 0.7) -> list[Pair]:
    """AgentGym's rule for two samples: one pair if they differ enough and the better one is good. arXiv:2406.04151.

        gap >= least_gap and reward of the chosen >= least_chosen          WebShop: 0.1 and 0.9

    Raises:  ValueError unless the group has two rollouts.
    """
    if len(group.rollouts) != 2:
        raise ValueError(
            f"group {group.key!r} has {len(group.rollouts)} rollouts, this rule compares two samples; "
            "sample with answers=2, or use best_worst"
        )
    return [
        pair
        for pair in best_worst(group)
        if pair.gap >= least_gap and pair.chosen.reward >= least_chosen
    ]


def split_by_gap(pairs: Iterable[Pair], gamma: float) -> tuple[list[Pair], list[Pair]]:
    """(clear, close): gap > gamma, and the rest. A filter, or the easy and the hard set of MPO, arXiv:2403.19443.

    The gap is signed: a pair whose rewards contradict its label is close.
    """
    clear: list[Pair] = []
    close: list[Pair] = []
    for pair in pairs:
        (clear if pair.gap > gamma else close).append(pair)
    return clear, close
