"""The log-probabilities of the policy at the start of the update, guessed instead of computed."""

from __future__ import annotations

import torch
from torch import Tensor

from ludus.tensors import blank, check_tokens


def interpolated(
    logp: Tensor, sampler_logp: Tensor, mask: Tensor, version: Tensor, *, old: int, now: int
) -> Tensor:
    """log o = log mu + a (log pi - log mu), a = (old - version) / (now - version).

    A proximal policy without a forward pass. Asynchronous training: a token sampled by weights
    `version` is learnt by weights `now` in an update that began at `old`; the policy in between is
    taken to lie in between. a is 0 where version = now, and in [0, 1].

    Args:     logp, sampler_logp [B,T], mask [B,T] bool, version [B,T] integers, old <= now.
    Returns:  [B,T] without gradient, 0 where mask is False.
    """
    check_tokens(mask, logp=logp, sampler_logp=sampler_logp, version=version)
    if old > now:
        raise ValueError(
            f"the update began at version {old}, after the present version {now}; swap old and now"
        )
    span = (now - version).clamp(min=1)
    share = torch.where(version < now, (old - version) / span, 0.0).clamp(0.0, 1.0)
    mu, pi = blank(sampler_logp.detach(), mask), blank(logp.detach(), mask)
    return mu + share * (pi - mu)
