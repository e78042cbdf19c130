"""Tapering the importance weight of bad answers only."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ludus.losses.ratio import log_ratio
from ludus.tensors import blank, check_tokens


def topr(
    logp: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    level: Literal["sequence", "token"] = "sequence",
) -> Tensor:
    """-w A log pi, w = 1 where A >= 0 and sg(min(x, 1)) where A < 0. TOPR, arXiv:2503.14286.

    x is the ratio pi / pi_old of the whole row in the paper, of the token in some trainers
    (`level`). A bad answer that has become unlikely is left alone; a good one is always learnt.

    Args:     logp, old_logp, advantage [B,T] (a reward of +-1, or less a baseline), mask [B,T]
              bool.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    check_tokens(mask, advantage=advantage)
    ratio = log_ratio(logp.detach(), old_logp, mask, level=level).exp()
    advantage = blank(advantage, mask)
    weight = torch.where(advantage < 0, ratio.clamp(max=1.0), torch.ones_like(ratio))
    return -weight * advantage * blank(logp, mask)
