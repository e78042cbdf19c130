"""One packed forward pass over the rows of a batch: log-probabilities or values, back in the shape [B,T]."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ludus.engines.local.attention import Tree
from ludus.engines.local.tree import pack
from ludus.models.soft import embeddings, log_density, mixture, vocabulary
from ludus.types import Batch, Soft

if TYPE_CHECKING:
    from ludus.engines.local.model import CausalModel

CHUNK = 1024  # mixtures at a time: their logits [CHUNK,V] are computed twice and not kept


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
    _refuse_unknown(tokens, vocabulary(model.module), batch)
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


def _refuse_unknown(tokens: np.ndarray, size: int, batch: Batch) -> None:
    unknown = set(tokens[tokens >= size].tolist()) - set(batch.inputs)
    if unknown:
        raise ValueError(
            f"{len(unknown)} numbers in the batch, such as {min(unknown)}, are beyond the vocabulary of {size}, and "
            "its `inputs` do not say what they stand for; the store does not keep it (such as the vectors of soft "
            "tokens), so learn from such rollouts in the run that samples them"
        )


def scatter(values: Tensor, mask: Tensor) -> Tensor:
    """[N] in row-major order of mask -> [B,T], 0 elsewhere; differentiable."""
    return values.new_zeros(mask.shape).masked_scatter(mask.to(values.device), values)


def policy(
    model: CausalModel, batch: Batch, now: Collection[str] = ()
) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probability [B,T] of each masked token at the batch's temperature, and what else is asked, each [B,T]:
    "entropy" of the distribution it was chosen from, "mean_logp" over the vocabulary (without gradient).

    Where a vector was chosen (Batch.soft) it is the log-density; the other two stay those of the tokens there."""
    hidden, targets = hidden_before(model, batch)
    vectors = targets >= vocabulary(model.module)
    logp, entropy = model.logp(
        hidden, targets.masked_fill(vectors, 0), batch.temperature, "entropy" in now
    )
    if batch.soft is not None:
        densities = _densities(model, hidden[vectors], targets[vectors], batch, batch.soft)
        logp = logp.masked_scatter(vectors, densities.to(logp))
    measured = {} if entropy is None else {"entropy": entropy}
    if "mean_logp" in now:
        measured["mean_logp"] = model.mean_logp(hidden, batch.temperature)
    return scatter(logp, batch.mask), {n: scatter(v, batch.mask) for n, v in measured.items()}


def _densities(
    model: CausalModel, hidden: Tensor, numbers: Tensor, batch: Batch, soft: Soft
) -> Tensor:
    """[N]: log-density of each stored vector around the mixture that `hidden` [N,H] makes now; see ludus.models.soft.

    Logits are computed again in the backward pass, as for tokens: [N,V] never exists at once.
    """
    if not len(numbers):
        return hidden.new_zeros(0, dtype=torch.float32)
    stored: list[Any] = [batch.inputs[n] for n in numbers.tolist()]
    read = torch.from_numpy(np.stack(stored)).to(hidden.device)
    of_chunk = partial(_density, model, soft)
    return torch.cat(
        [
            checkpoint(of_chunk, *part, use_reentrant=False, preserve_rng_state=False)
            for part in zip(hidden.split(CHUNK), read.split(CHUNK), strict=True)
        ]
    )


def _density(model: CausalModel, soft: Soft, hidden: Tensor, read: Tensor) -> Tensor:
    assert soft.sigma is not None  # what was sampled names it
    centre = mixture(model.logits(hidden), embeddings(model.module), soft.temperature)
    return log_density(read, centre, soft.sigma)
