"""Entropy of the distribution that was sampled from, for a bonus: loss = policy loss - c entropy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ludus.tensors import check_tokens


def entropy(logits: Tensor, mask: Tensor, *, temperature: float = 1.0, chunk: int = 1024) -> Tensor:
    """H_t = -sum_v p_v log p_v in nats, p = softmax(logits / temperature).

    Needs all logits: minus the log-probability of the sampled token has the right mean but a
    gradient of mean 0. `chunk` tokens at a time, recomputed in the backward pass, so that memory
    grows with chunk * V and not with T * V.

    Args:     logits [B,T,V] (-inf for what cannot be sampled), mask [B,T] bool, temperature > 0.
    Returns:  [B,T], 0 where mask is False; never averaged.
    """
    check_tokens(mask)
    if logits.shape[:-1] != mask.shape:
        raise ValueError(
            f"logits have shape {list(logits.shape)}, mask has shape {list(mask.shape)}; give logits [B,T,V]"
        )
    if temperature <= 0:
        raise ValueError(f"temperature {temperature:g} has no distribution; give a number above 0")
    row, column = mask.nonzero(as_tuple=True)
    parts = [
        checkpoint(
            _entropy, logits[b, t], temperature, use_reentrant=False, preserve_rng_state=False
        )
        for b, t in zip(row.split(chunk), column.split(chunk), strict=True)
    ]
    out = logits.new_zeros(mask.shape)
    return out.index_put((row, column), torch.cat(parts)) if parts else out


def _entropy(logits: Tensor, temperature: float) -> Tensor:
    logp = (logits / temperature).log_softmax(-1)
    p = logp.exp()
    return -(p * logp.masked_fill(p == 0, 0.0)).sum(-1)
