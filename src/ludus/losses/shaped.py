"""Probabilities bent so that unlikely tokens of somebody else's answer keep a gradient."""

from __future__ import annotations

from torch import Tensor

from ludus.tensors import blank, check_tokens


def shaped(
    logp: Tensor, old_logp: Tensor, advantage: Tensor, mask: Tensor, *, gamma: float = 0.1
) -> Tensor:
    """-f(pi) A on the tokens of an external answer, f(x) = x / (x + gamma). LUFFY, arXiv:2504.14945.

    The ratio of a foreign token is pi itself, as if its author had been certain. Its gradient is pi
    A, nothing for what the policy would hardly say; f's is A gamma pi / (pi + gamma)^2, largest at
    pi = gamma.

    Args:     logp, old_logp (unused: all policy losses are called alike), advantage [B,T], mask
              [B,T] bool.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    check_tokens(mask, logp=logp, old_logp=old_logp, advantage=advantage)
    if gamma <= 0:
        raise ValueError(f"gamma={gamma:g}; give a number above 0, such as 0.1")
    pi = blank(logp, mask).exp()
    return -blank(pi / (pi + gamma), mask) * blank(advantage, mask)
