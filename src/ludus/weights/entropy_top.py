"""The tokens at which the policy is least sure: forks in the road. arXiv:2506.01939.

About a fifth of the tokens of a chain of thought carry most of its entropy; training on those alone
is DAPO with an indicator in the numerator of the loss, and the same indicator in its denominator.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ludus.tensors import check_tokens
from ludus.weights.average import Over, token_weights


def top_entropy(entropy: Tensor, mask: Tensor, *, rho: float = 0.2) -> Tensor:
    """A new mask: the trainable tokens whose entropy is at least the (1 - rho) quantile of them all.

    One threshold for the batch (interpolated linearly, as numpy does), not one a rollout: an answer
    without doubt has no fork. Ties at the threshold are kept; with distinct entropies the share
    kept is rho, to one token. Take it once for a rollout, from the weights at the start of the
    update, so that it does not drift with them. `entropy` is of the whole distribution at the
    sampling temperature; minus the log-probability of the sampled token is another thing.

    Args:     entropy [B,T] in nats, mask [B,T] bool: the tokens that count, without the lost.
    Returns:  [B,T] bool.
    """
    check_tokens(mask, entropy=entropy)
    if not 0 < rho <= 1:
        raise ValueError(f"rho={rho:g}; give the share of tokens to keep, above 0 and at most 1")
    ordered = entropy[mask].detach().double().sort().values  # torch.quantile ends at 16M numbers
    if not len(ordered):
        return torch.zeros_like(mask)
    place = round((len(ordered) - 1) * (1 - rho), 9)  # 10 * (1 - 0.7) is a little more than 3
    low = ordered[int(place)]
    high = ordered[min(int(place) + 1, len(ordered) - 1)]
    threshold = low + (high - low) * (place - int(place))
    return mask & (entropy.double() >= threshold)


def kept_weights(
    kept: Tensor,
    mask: Tensor,
    rollout: Tensor,
    *,
    denominator: Literal["kept", "all"] = "kept",
    over: Over = "tokens",
    turn: Tensor | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """Each kept token's share of the loss, counted among the kept tokens or among all.

    "kept" is the paper's; "all" (TRL's top_entropy_quantile) has the same direction at about rho
    times the size, so it is a smaller learning rate wherever the optimiser does not undo it.

    Args:     kept [B,T] bool, other arguments as `token_weights`.
    Returns:  [B,T], 0 where kept or mask is False.
    """
    check_tokens(mask, kept=kept)
    counted = mask & kept if denominator == "kept" else mask
    return token_weights(counted, rollout, over=over, turn=turn, group=group) * kept


def overlap(kept: Tensor, other: Tensor) -> float:
    """The share of `kept` [B,T] that is also in `other` [B,T]; 1 where nothing is kept.

    The paper finds 86.67 % of the base model's forks still forks after 1,360 steps.
    """
    check_tokens(kept, other=other)
    return float((kept & other).sum() / kept.sum()) if bool(kept.any()) else 1.0
