"""The plain policy gradient."""

from __future__ import annotations

from torch import Tensor

from ludus.tensors import blank, check_tokens


def reinforce(logp: Tensor, old_logp: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
    """-A log pi: no ratio, no clip; for REINFORCE, RLOO, ReMax and GPG.

    Right on-policy, with one update per rollout. With over="answer sums" the gradient is that of
    the expected reward. A mean over the tokens of each answer instead makes it depend on the
    length.

    Args:     logp, old_logp (unused: all policy losses are called alike), advantage [B,T], mask
              [B,T] bool.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    check_tokens(mask, logp=logp, old_logp=old_logp, advantage=advantage)
    return -blank(advantage, mask) * blank(logp, mask)
