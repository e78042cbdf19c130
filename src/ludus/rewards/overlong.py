"""Answers that are too long: DAPO's soft punishment, and its filter. arXiv:2503.14476."""

from __future__ import annotations

from torch import Tensor

from ludus.tensors import check_tokens


def overlong_penalty(length: Tensor, *, limit: int, buffer: int) -> Tensor:
    """0 up to limit - buffer tokens, straight down to -1 at limit, -1 beyond.

    Added to a reward of +-1. DAPO: limit 20,480, buffer 4,096. Filter groups by the plain accuracy,
    not by the sum.

    Args: length [R] tokens that the policy wrote.   Returns: [R] float32 in [-1, 0].
    """
    if not 0 < buffer <= limit:
        raise ValueError(f"buffer {buffer} must lie in 1 to limit {limit}")
    return ((limit - buffer - length) / buffer).clamp(-1.0, 0.0)


def overlong_filter(mask: Tensor, rollout: Tensor, truncated: Tensor) -> Tensor:
    """A new mask [B,T], without the answers that were cut off at the limit.

    They teach nothing, neither good nor bad, and are not counted. An ablation of the paper, off in
    its best run.   Args: mask [B,T] bool, rollout [B] row -> rollout, truncated [R] bool.
    """
    check_tokens(mask)
    return mask & ~truncated[rollout][:, None]
