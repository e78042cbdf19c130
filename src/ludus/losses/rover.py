"""Valuing a random policy instead of improving one's own: regression of the log-ratio. arXiv:2509.24981."""

from __future__ import annotations

import torch
from torch import Tensor

from ludus.advantages.compact import compact
from ludus.losses.ratio import log_ratio
from ludus.tensors import blank, check_tokens


def rover(
    logp: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    mask: Tensor,
    mean_logp: Tensor,
    old_mean_logp: Tensor,
    *,
    rho: float = 1.0,
    beta: float = 1.0,
) -> Tensor:
    """(q_t - sg(A_t + beta next_t))^2: the log-ratio read as the value of choosing at random from here.

        q_t    = rho (log pi(a_t|s_t) - log pi_old(a_t|s_t))
        next_t = rho (m(s_{t+1}) - m_old(s_{t+1})),   m(s) = mean over the vocabulary of log pi(.|s)

    In a tree with one reward of 0 or 1 at its end, acting greedily on the value of the uniformly
    random policy is optimal, and softmax of it keeps several solutions. A_t is the reward less the
    mean of its group, not divided by a deviation. s_{t+1} is the state of the next token that the
    policy wrote in the row; behind the last one next is 0.

    In the first update of a rollout pi = pi_old: next is exactly 0 and the gradient is REINFORCE's,
    times 2. What is its own appears from the second update on, so with optim.updates=1 beta does
    nothing. A token that has reached its target has no gradient: there is no clip.

    Args:     logp, old_logp, advantage [B,T], mask [B,T] bool, mean_logp, old_mean_logp [B,T]: at t
              the mean of the distribution that token t was chosen from (models.mean_logprob), at
              the temperature of logp; no gradient flows into them. Log-ratios are clamped to +-20.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    check_tokens(mask, advantage=advantage)
    q = rho * log_ratio(logp, old_logp, mask)
    grown = rho * log_ratio(mean_logp.detach(), old_mean_logp, mask)
    target = blank(advantage, mask).detach() + beta * _following(grown, mask)
    return blank((q - target) ** 2, mask)


def _following(value: Tensor, mask: Tensor) -> Tensor:
    """[B,T]: the value at the next True of the row, 0 at the last."""
    tokens = compact(mask)
    dense = tokens.gather(value)
    if not dense.shape[1]:
        return torch.zeros_like(value)
    return tokens.scatter(torch.nn.functional.pad(dense[:, 1:], (0, 1)))
