"""Which groups are worth learning from: those whose rewards differ enough, by a bar that moves.

RLPR, arXiv:2506.18254. Where rewards are probabilities no group is ever quite equal, so the filter
of weights.groups keeps all. The bar is a share of the usual deviation, which falls as training goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ludus.tensors import check_vectors


def deviations(reward: Tensor, group: Tensor, *, scored: Tensor | None = None) -> Tensor:
    """[P]: unbiased standard deviation of each group's rewards, groups by ascending id; 0 for one member.

    Args: reward [R], group [R], scored [R] bool: a rollout lost to a fault counts nowhere.
    """
    check_vectors("reward", reward, group=group)
    keep = torch.ones_like(group, dtype=torch.bool) if scored is None else scored
    return torch.stack(
        [
            mine.std() if len(mine := reward[keep & (group == name)]) > 1 else reward.new_zeros(())
            for name in group.unique()
        ]
    )


@dataclass(frozen=True)
class SpreadFilter:
    """Keeps the groups with deviation >= beta times its moving average.

    beta       0.5 for Qwen, 0.9 for Llama, 1.0 for Gemma in the paper
    decay      of the moving average, per step
    measure    the first step whose deviations count
    use        the first step that is filtered; its average is the plain mean of what was measured so far

    Deviations are those of *all* groups that were sampled, the dropped ones included. State: {"step":
    steps measured or passed, "average": number or None, "count": steps in it}, plain JSON.
    """

    beta: float = 0.5
    decay: float = 0.99
    measure: int = 6
    use: int = 11

    def init(self) -> dict[str, Any]:
        return {"step": 0, "average": None, "count": 0}

    def keeps(self, state: dict[str, Any], deviation: Sequence[float]) -> list[bool]:
        """Of the groups of the step that comes next; the bar does not move within a step."""
        if state["step"] + 1 < self.use or state["average"] is None:
            return [True] * len(deviation)
        return [sigma >= self.beta * state["average"] for sigma in deviation]

    def update(self, state: dict[str, Any], deviation: Sequence[float]) -> dict[str, Any]:
        """After a step, with the deviations of all groups that it sampled."""
        step, average, count = state["step"] + 1, state["average"], state["count"]
        if step >= self.measure and deviation:
            mean = sum(deviation) / len(deviation)
            if average is None:
                average = mean
            elif step < self.use:
                average = (count * average + mean) / (count + 1)
            else:
                average = self.decay * average + (1 - self.decay) * mean
            count += 1
        return {"step": step, "average": average, "count": count}
