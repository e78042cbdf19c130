"""Advantage over a baseline that was measured on more rollouts than are learnt from.

Where a group is a selection (half right, half wrong), its own mean is always one half and says
nothing of the task. The mean of the pool that it was taken from does. Reinforce-Ada,
arXiv:2510.04996.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ludus.advantages.credit import Stateless
from ludus.tensors import check_vectors
from ludus.types import Batch, Credited


def over_pool(
    reward: Tensor,
    mean: Tensor,
    deviation: Tensor | None = None,
    *,
    eps: float = 1e-6,
    scored: Tensor | None = None,
) -> Tensor:
    """A_i = r_i - mean of the pool, divided by deviation + eps where one is given.

    Args:     reward, mean, deviation [R]: of the rollout's pool; scored [R] bool.
    Returns:  [R], 0 for rollouts lost to faults. In a pool of nothing but successes, or failures,
              reward and mean agree, and nothing is learnt.
    """
    check_vectors("reward", reward, mean=mean)
    advantage = reward - mean
    if deviation is not None:
        check_vectors("reward", reward, deviation=deviation)
        advantage = advantage / (deviation + eps)
    return advantage if scored is None else advantage.masked_fill(~scored, 0.0)


@dataclass(frozen=True)
class PoolBaseline(Stateless):
    """Success (reward above `threshold`, as 1 or 0) less batch.baseline, the success rate of the pool.

    `curricula.adaptive.Adaptive.select` makes that baseline. threshold None takes the reward itself.
    """

    threshold: float | None = 0.7
    needs: Sequence[str] = ("pool",)

    def __call__(self, batch: Batch) -> Credited:
        if batch.baseline is None:
            raise ValueError(
                "no group has a baseline; PoolBaseline wants a curriculum whose `select` gives one, such as Adaptive()"
            )
        reward = batch.reward
        if self.threshold is not None:
            reward = (reward > self.threshold).to(reward.dtype)
        return Credited(batch.spread(over_pool(reward, batch.baseline, scored=batch.scored)))
