"""Clipping the ratio of whole answers instead of tokens."""

from __future__ import annotations

from torch import Tensor

from ludus.losses.ratio import log_ratio, surrogate
from ludus.tensors import blank, check_tokens


def gspo(
    logp: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    low: float = 3e-4,
    high: float = 4e-4,
) -> Tensor:
    """max(-s A, -clip(s, 1-low, 1+high) A) on every token of a row. arXiv:2507.18071.

        s = exp(mean over the tokens of the row of log pi - log pi_old)

    Written per token (GSPO-token): x_t = sg(s) exp(l_t - sg(l_t)), which has the value of s and,
    averaged over the answer, its gradient; A may then differ from token to token. Use
    over="answers": with over="tokens" long answers weigh more, which is not GSPO. A row (context)
    is an answer, so that cutting into micro-batches changes nothing. With one token a row it is
    PPO.

    Args:     logp, old_logp, advantage [B,T], mask [B,T] bool.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    check_tokens(mask, advantage=advantage)
    sequence = log_ratio(logp.detach(), old_logp, mask, level="geometric").exp()
    current = blank(logp, mask)
    ratio = sequence * (current - current.detach()).exp()
    return surrogate(ratio, blank(advantage, mask), low, high)
