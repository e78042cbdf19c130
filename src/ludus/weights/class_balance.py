"""Weights that let the rarer class speak up: for a verifier that sees nine wrong answers to one right.

RL Tango, arXiv:2505.15034. A judge that always says "incorrect" is right nine times in ten. The
*loss* of each sample is weighed by its true class, never the reward: its baseline must not see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


def balanced_weights(truth: Tensor, right: float, wrong: float, *, eps: float = 1e-6) -> Tensor:
    """1 / sqrt(count of the sample's class), scaled to mean 1 over the batch.

    Args:     truth [R] bool, the class of each sample; right, wrong: (moving) counts of the classes.
    Returns:  [R] float32. A class that was never seen is weighed as if it had eps^2 members.
    """
    if truth.dtype != torch.bool:
        raise TypeError(f"truth has dtype {truth.dtype}; give torch.bool: answer was right, say")
    if not len(truth):
        return torch.zeros(0)
    weight = torch.where(truth, 1 / (right**0.5 + eps), 1 / (wrong**0.5 + eps))
    return (weight / weight.mean()).float()


@dataclass(frozen=True)
class ClassCounts:
    """Moving counts of both classes, started at those of the first batch; state {"right", "wrong"} or None."""

    decay: float = 0.8

    def init(self) -> None:
        return None

    def update(self, state: Mapping[str, float] | None, truth: Tensor) -> dict[str, float]:
        right = float(truth.sum())
        now = {"right": right, "wrong": len(truth) - right}
        if state is None:
            return now
        return {name: self.decay * state[name] + (1 - self.decay) * now[name] for name in now}
