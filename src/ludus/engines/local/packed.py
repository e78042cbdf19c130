"""One packed forward pass over the rows of a batch: log-probabilities or values, back in the shape [B,T]."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ludus.engines.local.attention import Tree
from ludus.engines.local.tree import pack
from ludus.types import Batch

if TYPE_CHECKING:
    from ludus.engines.local.model import CausalModel


def passes(batch: Batch, tokens: int, wanted: Tensor) -> Iterator[Tensor]:
    """Row indices of each pass: wanted rows [B] in order (a group's stay neighbours), cut at a budget of tokens.

    A row longer than the budget is a pass of its own.
    """
    lengths = batch.lengths().tolist()
    rows: list[int] = []
    size = 0
    for row in wanted.nonzero()[:, 0].tolist():
        if rows and size + lengths[row] > tokens:
            yield torch.tensor(rows)
            rows, size = [], 0
        rows.append(row)
        size += lengths[row]
    if rows:
        yield torch.tensor(rows)


def hidden_before(model: CausalModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """The hidden state from which each masked token was predicted, and those tokens: [N,H] and [N] int64.

    N runs over batch.mask in row-major order. Prefixes that rows share are computed once; their gradient is the sum.
    """
    tokens = batch.tokens.cpu().numpy()
    packed = pack([row[row >= 0] for row in tokens])
    device = model.device
    hidden = model.hidden(
        torch.from_numpy(packed.ids).to(device)[None],
        torch.from_numpy(packed.positions).to(device)[None],
        Tree(packed.segments, device),
        batch.inputs,
    )
    row, column = batch.mask.cpu().nonzero(as_tuple=True)
    if len(column) and int(column.min()) == 0:
        raise ValueError(
            "the first token of a row is trainable, and nothing came before to predict it from"
        )
    before = np.array(
        [packed.index[i][t - 1] for i, t in zip(row.tolist(), column.tolist(), strict=True)],
        np.int64,
    )
    return hidden[torch.from_numpy(before).to(device)], batch.tokens[batch.mask].to(device)


def scatter(values: Tensor, mask: Tensor) -> Tensor:
    """[N] in row-major order of mask -> [B,T], 0 elsewhere; differentiable."""
    return values.new_zeros(mask.shape).masked_scatter(mask.to(values.device), values)


def policy(
    model: CausalModel, batch: Batch, now: Collection[str] = ()
) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probability [B,T] of each masked token at the batch's temperature, and what else is asked, each [B,T]:
    "entropy" of the distribution it was chosen from, "mean_logp" over the vocabulary (without gradient)."""
    hidden, targets = hidden_before(model, batch)
    logp, entropy = model.logp(hidden, targets, batch.temperature, "entropy" in now)
    measured = {} if entropy is None else {"entropy": entropy}
    if "mean_logp" in now:
        measured["mean_logp"] = model.mean_logp(hidden, batch.temperature)
    return scatter(logp, batch.mask), {n: scatter(v, batch.mask) for n, v in measured.items()}
