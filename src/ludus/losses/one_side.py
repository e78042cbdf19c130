"""REINFORCE that stops a token once PPO's clip would."""

from __future__ import annotations

from torch import Tensor

from ludus.losses.ratio import log_ratio, unclipped
from ludus.tensors import blank, check_tokens


def one_side(
    logp: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    low: float = 0.2,
    high: float = 0.2,
) -> Tensor:
    """-1[A >= 0 and x <= 1+high, or A <= 0 and x >= 1-low] A log pi, x = pi / pi_old.

    REC-OneSide-NoIS: the clip without the importance weight; with the weight it would have PPO's
    gradient, which is `clipped_ratio`.

    Args:     logp, old_logp, advantage [B,T], mask [B,T] bool.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    check_tokens(mask, advantage=advantage)
    ratio = log_ratio(logp.detach(), old_logp, mask).exp()
    advantage = blank(advantage, mask)
    moving = blank(advantage, unclipped(ratio, advantage, low, high))
    return -moving * blank(logp, mask)
