"""Learning from an answer of somebody else, whose policy nobody knows. RL-PLUS, arXiv:2508.00222."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ludus.tensors import blank, check_tokens


def mixture_ratio(
    logp: Tensor,
    old_logp: Tensor,
    mask: Tensor,
    *,
    uniform: Literal["one", "vocab"] = "one",
    vocabulary: int | None = None,
) -> Tensor:
    """x_m = 2 pi / (pi_other + pi_old), with pi_other guessed as (pi_old + U) / 2.

    pi_old is the learner's own probability of the foreign token at the start of the update, so it
    has to be computed: nobody sampled it. The gradient flows through pi alone.

        one    U = 1, as released: x_m = 2 pi / (1.5 pi_old + 0.5) <= 4; unlikely tokens weigh little
        vocab  U = 1 / V: unlikely tokens weigh up to 4/3 on-policy

    Args:     logp, old_logp [B,T], mask [B,T] bool, vocabulary V for uniform="vocab".
    Returns:  [B,T], 0 where mask is False.
    """
    check_tokens(mask, logp=logp, old_logp=old_logp)
    if uniform == "vocab":
        if vocabulary is None:
            raise ValueError('uniform="vocab" needs the number of tokens; give vocabulary=len(...)')
        u = 1 / vocabulary
    else:
        u = 1.0
    pi, old = blank(logp, mask).exp(), blank(old_logp.detach(), mask).exp()
    return blank(2 * pi / (1.5 * old + 0.5 * u), mask)


def foreign(
    logp: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    mask: Tensor,
    *,
    uniform: Literal["one", "vocab"] = "one",
    vocabulary: int | None = None,
    gamma: float = 0.5,
) -> Tensor:
    """-x_m C A on the tokens of an external answer, C = (1 - sg(pi))^gamma. RL-PLUS, arXiv:2508.00222.

    C raises what the policy would hardly have said; gamma 0 leaves it out. Nothing is clipped: the
    ratio to whoever wrote the token is not known. The gradient with respect to logp is the value
    itself. On-policy, with the released constants, x_m C is largest (0.57) at pi = 0.46, 0.04 at
    pi = 0.01 and 0 at 1.

    The advantage comes from the whole group, the external answer included. Own answers of the group
    keep a loss of their own (two_sources.py): -x A, not clipped in the released setting, which is
    clipped_ratio with low = high = inf.

    Args:     logp, old_logp, advantage [B,T], mask [B,T] bool, others as `mixture_ratio`.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    check_tokens(mask, advantage=advantage)
    ratio = mixture_ratio(logp, old_logp, mask, uniform=uniform, vocabulary=vocabulary)
    unsure = (1 - blank(logp.detach(), mask).exp()).clamp(min=0.0) ** gamma
    return -ratio * unsure * blank(advantage, mask)
