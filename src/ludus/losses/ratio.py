"""The probability ratio between two policies, and where PPO's clip lets a gradient through."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ludus.tensors import blank, check_tokens

BOUND = 20.0  # of a log-ratio before exp; exp(20) is 5e8, and what lies beyond means nothing

Level = Literal["token", "sequence", "geometric"]


def log_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor, *, level: Level = "token") -> Tensor:
    """log pi - log pi_old, clamped to +-20; the gradient flows into logp alone.

        token       of each token                              [B,T], 0 where mask is False
        sequence    summed over the trainable tokens of a row  [B,1]
        geometric   the mean instead of the sum                [B,1]

    Args: logp, old_logp [B,T], mask [B,T] bool. A row without trainable tokens has 0.
    """
    check_tokens(mask, logp=logp, old_logp=old_logp)
    difference = blank(logp - old_logp.detach(), mask)
    if level != "token":
        difference = difference.sum(1, keepdim=True)
    if level == "geometric":
        difference = difference / mask.sum(1, keepdim=True).clamp(min=1)
    return difference.clamp(-BOUND, BOUND)


def surrogate(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """max(-x A, -clip(x, 1-low, 1+high) A): the pessimistic side of PPO's clip, to be minimised."""
    clipped = ratio.clamp(1 - low, 1 + high)
    return (-ratio * advantage).maximum(-clipped * advantage)


def unclipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """Bool: where `surrogate` has a gradient; a token stops once it has moved far enough its own way."""
    return ((advantage >= 0) & (ratio <= 1 + high)) | ((advantage <= 0) & (ratio >= 1 - low))
