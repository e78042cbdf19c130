"""Generalised advantage estimation with one lambda for the critic and another for the policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ludus.advantages.credit import GAE, Stateless, token_reward
from ludus.advantages.gae import gae
from ludus.advantages.whiten import whiten
from ludus.tensors import total
from ludus.types import Batch, Credited


def length_adaptive(length: Tensor, *, alpha: float = 0.05) -> Tensor:
    """lambda = 1 - 1 / (alpha l), not below 0. VAPO, arXiv:2504.05118.

    sum_k lambda^k = alpha l: a temporal difference reaches back over the same share of every
    answer. With alpha 0.05 an answer of 40 tokens gets 0.5, one of 10,000 gets 0.998. At l <=
    1/alpha the formula is 0 or less; the bound at 0 is not in the paper.

    Args: length [R], tokens that the policy wrote.   Returns: [R] float32 in [0, 1).
    """
    if alpha <= 0:
        raise ValueError(f"alpha={alpha:g}; give a number above 0, such as 0.05")
    return (1 - 1 / (alpha * length.float())).clamp(min=0.0)


@dataclass(frozen=True)
class DecoupledGAE(Stateless):
    """Advantages by one lambda, whitened; the critic's targets by another, not whitened.

    With critic_lam 1 every target is the return itself, so the critic has no bias from its own
    values, however long the answer; the policy keeps the smaller variance of a lambda below 1.
    VC-PPO, arXiv:2503.01491.

    lam         of the policy: a number, or a function of the lengths [R] of the rollouts
    critic_lam  of the critic
    gamma, per_turn, whitened  as in `GAE`, which this is where both lambdas are equal
    """

    lam: float | Callable[[Tensor], Tensor] = 0.95
    critic_lam: float = 1.0
    gamma: float = 1.0
    whitened: bool = True
    per_turn: bool = False

    @property
    def needs(self) -> Sequence[str]:
        return ("value", "turn_reward") if self.per_turn else ("value",)

    def __call__(self, batch: Batch) -> Credited:
        critic = GAE(self.gamma, self.critic_lam, whitened=False, per_turn=self.per_turn)
        returns = critic(batch).returns  # says so where there are no values
        assert batch.value is not None
        mask = batch.mask & batch.scored[batch.rollout][:, None]
        lam = self.lam
        if not isinstance(lam, int | float):
            lam = lam(total(mask.sum(1), batch.rollout, len(batch.reward)))
        reward = token_reward(batch, batch.reward, mask, per_turn=self.per_turn)
        advantage, _ = gae(
            reward, batch.value, mask, gamma=self.gamma, lam=lam, rollout=batch.rollout
        )
        return Credited(whiten(advantage, mask) if self.whitened else advantage, returns)


def LengthAdaptiveGAE(*, alpha: float = 0.05) -> DecoupledGAE:
    """VAPO's credit, arXiv:2504.05118: lambda of the policy by length, of the critic 1."""
    return DecoupledGAE(partial(length_adaptive, alpha=alpha))
