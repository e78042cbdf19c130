"""Clipping the importance weight, not the update."""

from __future__ import annotations

from torch import Tensor

from ludus.losses.ratio import log_ratio, unclipped
from ludus.tensors import blank, check_tokens


def cispo(
    logp: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    upper: float,
    lower: float = 0.0,
    stop: tuple[float, float] | None = None,
) -> Tensor:
    """-sg(clip(x, lower, upper)) A log pi, x = pi / pi_old. CISPO, arXiv:2506.13585.

    Every token keeps a gradient. The report prints no bound, so `upper` has no default. It is the
    bound itself, as TRL reads its setting; where a script says eps (verl), upper = 1 + eps. The
    paper has no lower bound.

    stop = (low, high) is the report's unified form: it multiplies by 0 exactly where PPO's clip
    would stop the gradient, so with upper = inf the gradient is PPO's.

    Args:     logp, old_logp, advantage [B,T], mask [B,T] bool.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    check_tokens(mask, advantage=advantage)
    ratio = log_ratio(logp.detach(), old_logp, mask).exp()
    advantage = blank(advantage, mask)
    weight = ratio.clamp(lower, upper)
    if stop is not None:
        weight = weight * unclipped(ratio, advantage, *stop)
    return -weight * advantage * blank(logp, mask)
