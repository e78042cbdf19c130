"""One loss for what the policy wrote, another for what somebody else wrote, in one batch."""

from __future__ import annotations

from torch import Tensor

from ludus.tensors import check_tokens
from ludus.types import Loss


def two_sources(
    logp: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    mask: Tensor,
    external: Tensor,
    *,
    own: Loss,
    theirs: Loss,
) -> Tensor:
    """`own` where external is False, `theirs` where it is True; both count in one average.

    RL-PLUS (arXiv:2508.00222): own=partial(clipped_ratio, low=inf, high=inf), theirs=foreign. LUFFY
    (arXiv:2504.14945): theirs=shaped.

    Args:     logp, old_logp, advantage [B,T], mask [B,T] bool (both kinds are trained), external
              [B,T] bool: who wrote the token.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    check_tokens(mask, external=external)
    check_tokens(external)  # its dtype: ~ of numbers is no mask
    mine = own(logp, old_logp, advantage, mask & ~external)
    return mine + theirs(logp, old_logp, advantage, mask & external)
