"""Staying close to a reference policy: KL(pi, ref) from sampled tokens, and where each belongs.

d = log pi - log ref of the sampled token, clamped to +-20. On tokens sampled from pi:

| function    | value              | mean of value | as a loss, its gradient is that of  |
| ----------- | ------------------ | ------------- | ----------------------------------- |
| k1          | d                  | KL            | nothing (mean 0): use in the reward |
| k2          | d^2 / 2            | about KL      | KL(pi, ref)                         |
| k3          | exp(-d) - 1 + d    | KL            | KL(ref, pi), the forward one        |
| k3_straight | that of k3         | KL            | KL(pi, ref), through k2             |
| k3_weighted | x k3, x = pi / old | KL            | KL(pi, ref), also off-policy        |

All take [B,T] tensors with mask [B,T] bool and return [B,T], 0 where mask is False, never averaged.
The gradient flows into logp alone. http://joschu.net/blog/kl-approx.html for the values; the table
was computed by enumeration (tests).
"""

from __future__ import annotations

from torch import Tensor

from ludus.losses.ratio import log_ratio


def k1(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """d. In the reward: r_t - beta k1_t, detached (REINFORCE++, RLOO, PPO for language models)."""
    return log_ratio(logp, ref_logp, mask)


def k2(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """d^2 / 2, never negative."""
    return log_ratio(logp, ref_logp, mask) ** 2 / 2


def k3(logp: Tensor, ref_logp: Tensor, mask: Tensor, *, cap: float | None = None) -> Tensor:
    """exp(-d) - 1 + d, never negative; GRPO's penalty.

    cap=10 in verl and AgentGym-RL: a token that lies further away has no gradient.
    """
    d = log_ratio(logp, ref_logp, mask)
    penalty = (-d).exp() - 1 + d
    return penalty if cap is None else penalty.clamp(max=cap)


def k3_straight(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """The value of k3 with the gradient of k2."""
    square = k2(logp, ref_logp, mask)
    return square + (k3(logp, ref_logp, mask) - square).detach()


def k3_weighted(logp: Tensor, old_logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """pi / pi_old times k3, the gradient through both; unbiased for tokens of an older policy."""
    return log_ratio(logp, old_logp, mask).exp() * k3(logp, ref_logp, mask)


def adapted(beta: float, kl: float, *, target: float, count: int, horizon: float) -> float:
    """The coefficient after `count` more rollouts whose mean KL is `kl`. arXiv:1909.08593.

        beta (1 + clip(kl / target - 1, -0.2, 0.2) count / horizon)

    Raises ValueError unless target and horizon are above 0, and where `count` is so many horizons that the coefficient
    could fall to 0 or below, where distance is paid for.
    """
    if target <= 0 or horizon <= 0:
        raise ValueError(f"target {target:g} and horizon {horizon:g} must be above 0")
    if count >= 5 * horizon:
        raise ValueError(
            f"{count} rollouts in one step move a coefficient of horizon {horizon:g} to 0 or below; the horizon is "
            f"counted in rollouts, give one well above {count / 5:g}"
        )
    return beta * (1 + max(-0.2, min(0.2, kl / target - 1)) * count / horizon)
