"""Centre and scale numbers per token over all tokens that the policy wrote."""

from __future__ import annotations

import torch
from torch import Tensor

from ludus.tensors import blank, check_tokens


def whiten(
    value: Tensor, mask: Tensor, *, ddof: int = 1, eps: float = 1e-8, floor: float = 0.0
) -> Tensor:
    """(value - mean) / sqrt(max(var, floor) + eps), over all tokens of the batch with mask True.

    The set is the tokens, not the rollouts: a long rollout weighs more, as in PPO and REINFORCE++
    (arXiv:2501.03262). verl and ROLL: ddof 1, eps 1e-8 (the default). OpenRLHF: ddof 0, eps 0,
    floor 1e-8.

    Args:     value [B,T], mask [B,T] bool.
    Returns:  [B,T] of the dtype of value, 0 where mask is False; 0 everywhere if all values are
              equal, one token or none included.
    """
    check_tokens(mask, value=value)
    tokens = value[mask].double()
    if len(tokens) == 0 or bool(tokens.min() == tokens.max()):
        return torch.zeros_like(value)
    variance = tokens.var(correction=ddof).clamp(min=floor)
    white = (value - tokens.mean()) * (variance + eps).rsqrt()
    return blank(white, mask).to(value.dtype)
