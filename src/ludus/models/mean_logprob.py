"""The mean log-probability over the whole vocabulary, straight from hidden states, a chunk at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ludus.models.linear_logprob import head_logits


def mean_logprob(
    hidden: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int = 1024,
) -> Tensor:
    """mean_v log softmax(z)_v = mean(z) - logsumexp(z), in nats; -log V where all are equal, less elsewhere.

    For targets, so without gradient. [N,V] never exists: at the peak about two [chunk,V] do. The
    mean is over the rows of `weight`, those that pad a vocabulary to a round number included; a
    token whose bias is -inf is out of the vocabulary and out of the mean.

    Args:     as `linear_logprob`: hidden [N,H], weight [V,H], bias [V], temperature > 0 (one, or [N]).
    Returns:  [N] float32, or float64 where an input is.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; give a number of tokens, such as 1024")
    inside = slice(None) if bias is None else (bias.detach() > -torch.inf).nonzero()[:, 0]
    parts = []
    for start in range(0, max(len(hidden), 1), chunk):
        part = slice(start, start + chunk)
        tau = temperature[part] if isinstance(temperature, Tensor) else temperature
        z = head_logits(
            hidden[part], weight, bias=bias, temperature=tau, softcap=softcap, scale=scale
        )
        parts.append(z[:, inside].mean(1) - z.logsumexp(1))
    return torch.cat(parts)
