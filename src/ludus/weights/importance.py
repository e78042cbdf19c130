"""Correcting for a sampler that is not quite the learner: importance weights, and rejection.

Three policies: mu (the sampler, `sampler_logp`), the learner at the start of the update (`logp`
here), and the learner now, which only the loss sees. Decoupled PPO (arXiv:2110.00641) multiplies
its loss per token by the weight of this file. Where the loss takes sampler_logp as its old_logp,
the ratio already holds the correction: then no weight of this file.

    q_t = exp(logp - sampler_logp)

    token      q_t
    sequence   the product over the row
    geometric  the T-th root of the product

Nothing here carries a gradient. With equal log-probabilities every weight is 1. All [B,T], 0 where
mask is False.
"""

from __future__ import annotations

from torch import Tensor

from ludus.losses.kl import k3
from ludus.losses.ratio import Level, log_ratio
from ludus.tensors import check_tokens


def importance(
    logp: Tensor, sampler_logp: Tensor, mask: Tensor, *, level: Level = "token"
) -> Tensor:
    """The exact weight at a level, log q clamped to +-20; a row's weight stands on all its tokens."""
    return log_ratio(logp.detach(), sampler_logp, mask, level=level).exp() * mask


def truncated(
    logp: Tensor,
    sampler_logp: Tensor,
    mask: Tensor,
    *,
    high: float = 2.0,
    low: float = 0.0,
    level: Level = "token",
) -> Tensor:
    """clip(q, low, high): TIS. Usual bounds 1.5 to 5 for tokens, 2 to 10 for sequences."""
    return importance(logp, sampler_logp, mask, level=level).clamp(low, high) * mask


def masked(
    logp: Tensor,
    sampler_logp: Tensor,
    mask: Tensor,
    *,
    low: float = 0.5,
    high: float = 2.0,
    level: Level = "token",
) -> Tensor:
    """q where low <= q <= high, else 0: MIS; with level="token", IcePop.

    The loss is 0 there, but the token still counts in the average.
    """
    weight = importance(logp, sampler_logp, mask, level=level)
    return weight.masked_fill((weight < low) | (weight > high), 0.0)


def divided_by_mean(weight: Tensor, mask: Tensor) -> Tensor:
    """Weights over their mean over the tokens of the batch; apply after truncation. All 0 stays 0."""
    check_tokens(mask, weight=weight)
    mean = weight[mask].sum() / mask.sum().clamp(min=1)
    return (weight / mean.where(mean > 0, 1.0)).masked_fill(~mask, 0.0)


def within_geometric(
    logp: Tensor, sampler_logp: Tensor, mask: Tensor, *, low: float = 0.99, high: float = 1.01
) -> Tensor:
    """A new mask, without the rows whose geometric mean of q lies outside [low, high]."""
    mean = log_ratio(logp.detach(), sampler_logp, mask, level="geometric").exp()
    return mask & (mean >= low) & (mean <= high)


def within_k3(logp: Tensor, sampler_logp: Tensor, mask: Tensor, *, high: float) -> Tensor:
    """A new mask, without the rows whose mean of q - 1 - log q exceeds `high`."""
    divergence = k3(sampler_logp.detach(), logp, mask).sum(1, keepdim=True)
    return mask & (divergence / mask.sum(1, keepdim=True).clamp(min=1) <= high)
