"""Which groups teach: the filter of DAPO's dynamic sampling. arXiv:2503.14476."""

from __future__ import annotations

import torch
from torch import Tensor

from ludus.tensors import check_vectors, constant


def mixed(accuracy: Tensor, group: Tensor, *, scored: Tensor | None = None) -> Tensor:
    """[R] bool: whether the rollout is scored and its group has both better and worse answers.

    Give the plain accuracy, not the shaped reward: a group of wrong answers of different lengths
    has nothing to teach but length, and would pass by its shaped reward.

    Args: accuracy [R] of any dtype, group [R] integer ids, scored [R] bool (left out: all).
    """
    check_vectors("accuracy", accuracy, group=group)
    if scored is None:
        scored = torch.ones_like(group, dtype=torch.bool)
    names, member = group.unique(return_inverse=True)
    same = constant(accuracy[scored].float(), member[scored], len(names))
    return scored & ~same[member]
