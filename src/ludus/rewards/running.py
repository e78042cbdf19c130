"""Rewards centred and scaled by what has been seen so far, for rewards of no natural scale (a logit, say)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Running:
    """(r - mean) / (std + eps) over all rewards since `init`, the new ones included; population std.

    The statistics are merged batch by batch (Chan et al.), so that a long run loses no digits.
    State: {"count", "mean", "square": sum of squared distances from the mean}.
    """

    eps: float = 1e-8

    def init(self) -> dict[str, float]:
        return {"count": 0.0, "mean": 0.0, "square": 0.0}

    def update(self, state: Mapping[str, float], rewards: Sequence[float]) -> dict[str, float]:
        if not rewards:
            return dict(state)
        count, mean = float(len(rewards)), math.fsum(rewards) / len(rewards)
        square = math.fsum((reward - mean) ** 2 for reward in rewards)
        whole, apart = state["count"] + count, mean - state["mean"]
        return {
            "count": whole,
            "mean": state["mean"] + apart * count / whole,
            "square": state["square"] + square + apart**2 * state["count"] * count / whole,
        }

    def scaled(self, state: Mapping[str, float], rewards: Sequence[float]) -> list[float]:
        """With the statistics of `state`; 0, up to rounding, if every reward so far was the same."""
        std = math.sqrt(state["square"] / max(state["count"], 1.0))
        return [(reward - state["mean"]) / (std + self.eps) for reward in rewards]
