"""How much of the returns a critic knows."""

from __future__ import annotations

from torch import Tensor

from ludus.tensors import check_tokens


def explained_variance(value: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(R - V) / Var(R) over the tokens that the policy wrote: 1 is perfect, 0 is a constant.

    Below 0 the critic is worse than a constant. VAPO (arXiv:2504.05118) trains the critic alone
    until it is high. Equal returns, or fewer than two tokens, leave nothing to explain: 0, so that
    nobody takes them for a good critic.

    Args: value, returns [B,T], mask [B,T] bool.
    """
    check_tokens(mask, value=value, returns=returns)
    target = returns[mask].double()
    if len(target) < 2 or bool(target.min() == target.max()):
        return 0.0
    return float(1 - (target - value[mask].double()).var() / target.var())
