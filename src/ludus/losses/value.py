"""The critic's loss."""

from __future__ import annotations

from torch import Tensor

from ludus.tensors import blank, check_tokens


def clipped_value(
    value: Tensor, old_value: Tensor, returns: Tensor, mask: Tensor, *, clip: float | None = 0.5
) -> Tensor:
    """0.5 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2), pessimistic like PPO's clip.

    A value that has already moved by `clip` towards its target gets no further gradient; clip 0.5
    in verl, 0.2 in others, None for 0.5 (V - R)^2. R comes from advantages that are not whitened.

    Args:     value, old_value (at the start of the update), returns [B,T], mask [B,T] bool.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    check_tokens(mask, value=value, old_value=old_value, returns=returns)
    value, old, returns = blank(value, mask), blank(old_value, mask).detach(), blank(returns, mask)
    loss = (value - returns) ** 2
    if clip is not None:
        near = old + (value - old).clamp(-clip, clip)
        loss = loss.maximum((near - returns) ** 2)
    return 0.5 * loss
