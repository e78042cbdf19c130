"""The clipped surrogate of PPO, with DAPO's wider upper bound and the dual clip."""

from __future__ import annotations

import torch
from torch import Tensor

from ludus.losses.ratio import log_ratio, surrogate
from ludus.tensors import blank, check_tokens


def clipped_ratio(
    logp: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    low: float = 0.2,
    high: float = 0.2,
    dual: float | None = None,
) -> Tensor:
    """max(-x A, -clip(x, 1-low, 1+high) A), x = pi / pi_old; where A < 0, at most -dual A.

    PPO arXiv:1707.06347 (0.2, 0.2); DAPO arXiv:2503.14476 (0.2, 0.28); dual clip arXiv:1912.09729
    (3; 10 in DAPO's scripts) bounds the loss of a token that grew likely although it was bad. With
    one update per rollout x is 1 and the gradient is REINFORCE's.

    Args:     logp, old_logp, advantage [B,T], mask [B,T] bool.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    if dual is not None and dual <= 1:
        raise ValueError(
            f"dual clip {dual:g} would cut on-policy tokens; give a number above 1, or None"
        )
    check_tokens(mask, advantage=advantage)
    ratio = log_ratio(logp, old_logp, mask).exp()
    advantage = blank(advantage, mask)
    loss = surrogate(ratio, advantage, low, high)
    if dual is not None:
        loss = torch.where(advantage < 0, loss.minimum(-dual * advantage), loss)
    return loss
