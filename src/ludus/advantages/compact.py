"""Leave out what the policy did not write, estimate on the rest, put the answer back.

Observations, templates and padding lie between the tokens that the policy chose. To a recursion
over time they do not exist: neither discount nor value may come from them. So [B,T] becomes [R,N],
the trainable tokens of each rollout in the order they were written (all its contexts, row after
row), and every estimator for one answer serves many turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ludus.tensors import check_tokens


@dataclass(frozen=True, eq=False)
class Compact:
    """Where M trainable tokens stand: in [B,T] (row, column) and in [R,N] (owner, place), all [M]."""

    row: Tensor
    column: Tensor
    owner: Tensor
    place: Tensor
    sparse: tuple[int, int]  # B, T
    dense: tuple[int, int]  # R, N

    def gather(self, value: Tensor) -> Tensor:
        """[B,T] -> [R,N], 0 behind the last token of a rollout."""
        kept = value[self.row, self.column]
        return value.new_zeros(self.dense).index_put((self.owner, self.place), kept)

    def scatter(self, value: Tensor) -> Tensor:
        """[R,N] -> [B,T], 0 where the policy wrote nothing."""
        kept = value[self.owner, self.place]
        return value.new_zeros(self.sparse).index_put((self.row, self.column), kept)


def compact(mask: Tensor, rollout: Tensor | None = None) -> Compact:
    """mask [B,T] bool, rollout [B] row -> rollout (left out: a row is a rollout)."""
    check_tokens(mask)
    if rollout is None:
        rollout = torch.arange(len(mask), device=mask.device)
    row, column = mask.nonzero(as_tuple=True)
    order = rollout[row].argsort(stable=True)
    row, column = row[order], column[order]
    owner = rollout[row]
    rollouts = int(rollout.max()) + 1 if len(rollout) else 0
    count = torch.bincount(owner, minlength=rollouts)
    place = torch.arange(len(owner), device=mask.device) - (count.cumsum(0) - count)[owner]
    longest = int(count.max()) if rollouts else 0
    sparse = (mask.shape[0], mask.shape[1])
    return Compact(row, column, owner, place, sparse, (rollouts, longest))


def discounted(value: Tensor, decay: float | Tensor) -> Tensor:
    """[R,N] -> [R,N]: y_n = value_n + decay y_{n+1}, 0 behind the end; decay is a number or [R]."""
    running = value.new_zeros(len(value))
    out = torch.empty_like(value)
    for n in range(value.shape[1] - 1, -1, -1):
        running = value[:, n] + decay * running
        out[:, n] = running
    return out
