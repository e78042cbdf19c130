"""Checks and reductions that every formula shares. Legend of shapes: see types.py."""

from __future__ import annotations

import torch
from torch import Tensor


def check_tokens(mask: Tensor, **tensors: Tensor) -> None:
    """Raise unless `mask` is [B,T] bool and every other tensor has one value per token."""
    if mask.dtype != torch.bool:
        raise TypeError(f"mask has dtype {mask.dtype}; give torch.bool, for instance mask.bool()")
    if mask.dim() != 2:
        raise ValueError(f"mask has shape {list(mask.shape)}; give [B,T], one row per context")
    for name, tensor in tensors.items():
        if tensor.shape != mask.shape:
            cure = ", for instance batch.spread(x)" if tensor.dim() == 1 else ""
            raise ValueError(
                f"{name} has shape {list(tensor.shape)}, mask has shape {list(mask.shape)}; "
                f"give one value per token{cure}"
            )


def check_vectors(name: str, like: Tensor, **vectors: Tensor) -> None:
    """Raise unless `like` (`name` in messages) and `vectors` are all [N] with the same N."""
    for other, vector in {name: like, **vectors}.items():
        if vector.dim() != 1 or vector.shape != like.shape:
            raise ValueError(
                f"{other} has shape {list(vector.shape)}, {name} has shape {list(like.shape)}; "
                "give two vectors of equal length"
            )


def blank(tensor: Tensor, mask: Tensor) -> Tensor:
    """0 where `mask` is False: what stood there, NaN included, reaches neither value nor gradient."""
    return tensor.masked_fill(~mask, 0.0)


def total(value: Tensor, index: Tensor, size: int) -> Tensor:
    """[N], [N] -> [size]: the sum of the values of each index."""
    return value.new_zeros(size).index_add(0, index, value)


def constant(value: Tensor, index: Tensor, size: int) -> Tensor:
    """[N], [N] -> [size] bool: whether all values of an index are the same number; none at all are.

    Told by the extremes: in floating point the mean of [0.1, 0.1, 0.1] is not 0.1, nor their
    variance 0.
    """
    low = value.new_full((size,), torch.inf).scatter_reduce(0, index, value, "amin")
    high = value.new_full((size,), -torch.inf).scatter_reduce(0, index, value, "amax")
    return low >= high
