"""Key-value rows that survive between the turns of a rollout, and the plan that attends through them.

A row holds the keys and values of one context, so a turn costs its new tokens and not its history. Rows are copied to
fork a context: the answers of a group prefill their prompt once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(eq=False)
class Row:
    """One context in the cache: the first `length` of its tokens have their keys and values stored."""

    index: int
    length: int = 0
    busy: bool = False
    used: int = -1  # the tick of its last use, for eviction


class KeyValueCache:
    """`rows` contexts of up to `capacity` tokens for every layer; both grow by a quarter, so the cost stays linear."""

    def __init__(
        self, layers: int, heads: int, dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.shape = (heads, dim)
        self.dtype, self.device = dtype, device
        self.rows: list[Row] = []
        self.ids = np.zeros((0, 0), np.int64)  # [rows, capacity]
        self.capacity = 0
        self.keys = [
            torch.empty(0, heads, 0, dim, dtype=dtype, device=device) for _ in range(layers)
        ]
        self.values = [tensor.clone() for tensor in self.keys]

    def reserve(self, rows: int, capacity: int) -> None:
        """Room for this many rows of this many tokens, keeping what is stored."""
        if rows <= len(self.rows) and capacity <= self.capacity:
            return
        capacity = _grown(self.capacity, capacity, 64)
        rows = _grown(len(self.rows), rows, 8)
        old, kept = len(self.rows), self.capacity
        for store in (self.keys, self.values):
            for layer, tensor in enumerate(store):
                heads, dim = self.shape
                # zeros, not empty: masked positions are multiplied by 0, and 0 * NaN is NaN
                grown = torch.zeros(
                    rows, heads, capacity, dim, dtype=self.dtype, device=self.device
                )
                grown[:old, :, :kept] = tensor
                store[layer] = grown
        ids = np.zeros((rows, capacity), np.int64)
        ids[:old, :kept] = self.ids
        self.ids, self.capacity = ids, capacity
        self.rows += [Row(i) for i in range(old, rows)]

    def shared(self, row: Row, context: np.ndarray) -> int:
        """How many leading tokens of `context` this row already holds."""
        n = min(row.length, len(context))
        different = np.flatnonzero(self.ids[row.index, :n] != context[:n])
        return int(different[0]) if len(different) else n

    def longest_prefix(self, context: np.ndarray) -> tuple[Row | None, int]:
        """The row that holds the most leading tokens of `context`, and how many."""
        n = min(len(context), self.capacity)
        if not n or not self.rows:
            return None, 0
        same = self.ids[:, :n] == context[:n]
        counts = np.where(same.all(1), n, same.argmin(1))
        counts = np.minimum(counts, [row.length for row in self.rows])
        best = int(counts.argmax())
        return (self.rows[best], int(counts[best])) if counts[best] else (None, 0)

    def copy(self, source: Row, target: Row, length: int) -> None:
        """The first `length` tokens of one row into another."""
        for store in (self.keys, self.values):
            for tensor in store:
                tensor[target.index, :, :length] = tensor[source.index, :, :length]
        self.ids[target.index, :length] = self.ids[source.index, :length]
        target.length = length

    def clear(self) -> None:
        """Forget everything: the weights have changed, so no stored key is valid any more."""
        for row in self.rows:
            row.length, row.busy, row.used = 0, False, -1

    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))


def _grown(now: int, wanted: int, least: int) -> int:
    return now if wanted <= now else max(wanted, now + now // 4, least)


@dataclass
class Bunch:
    """Rows that all add the same number of new tokens, so that they attend as one batch."""

    new: int
    rows: Tensor  # [R] indices into the cache
    positions: Tensor  # [R, new] of the new tokens in their contexts
    packed: Tensor | None  # [R, new] where they stand in the packed input; None: they are all of it
    longest: int  # context length of the longest row, new tokens included
    span: int  # 0, or the number of leading rows that hold them all, to attend without copying the cache
    masks: dict[int | None, Tensor] = field(default_factory=dict)


class Rows:
    """The plan of one tick: some rows, in order of their index, each add some tokens, given as (row, tokens)."""

    def __init__(self, cache: KeyValueCache, work: Sequence[tuple[Row, np.ndarray]]) -> None:
        self.cache = cache
        device = cache.device
        self.ids = torch.from_numpy(np.concatenate([ids for _, ids in work])).to(device)[None]
        self.positions = torch.from_numpy(
            np.concatenate([np.arange(row.length, row.length + len(ids)) for row, ids in work])
        ).to(device)[None]
        starts = np.cumsum([0, *(len(ids) for _, ids in work)])
        self.last = torch.from_numpy(starts[1:] - 1).to(device)  # [rows] the last new token of each
        by_count: dict[int, list[int]] = {}
        for i, (_, ids) in enumerate(work):
            by_count.setdefault(len(ids), []).append(i)
        self.bunches = [
            self._bunch(new, [work[i][0] for i in members], starts[members], len(by_count) == 1)
            for new, members in by_count.items()
        ]
        for row, ids in work:
            cache.ids[row.index, row.length : row.length + len(ids)] = ids
            row.length += len(ids)

    def _bunch(self, new: int, rows: list[Row], starts: np.ndarray, alone: bool) -> Bunch:
        device = self.cache.device
        index = np.array([row.index for row in rows])
        lengths = np.array([row.length for row in rows])
        step = np.arange(new)
        top = int(index.max()) + 1
        return Bunch(
            new=new,
            rows=torch.from_numpy(index).to(device),
            positions=torch.from_numpy(lengths[:, None] + step).to(device),
            packed=None if alone else torch.from_numpy(starts[:, None] + step).to(device),
            longest=int(lengths.max()) + new,
            span=top if top == len(rows) or (new == 1 and 2 * len(rows) >= top) else 0,
        )

    def _mask(self, bunch: Bunch, window: int | None, share: int) -> Tensor:
        """[rows, 1, share * new, longest], 0 or -inf: built once for all layers, as attention adds it.

        With a span, rows that add nothing now see their first token only.
        """
        if window not in bunch.masks:
            seen = torch.arange(bunch.longest, device=self.cache.device)
            positions = bunch.positions
            if bunch.span > len(positions):
                positions = positions.new_zeros(bunch.span, 1).index_copy_(0, bunch.rows, positions)
            hidden = seen > positions[..., None]
            if window is not None:
                hidden |= seen <= positions[..., None] - window
            mask = torch.zeros(hidden.shape, dtype=self.cache.dtype, device=self.cache.device)
            mask.masked_fill_(hidden, -torch.inf)
            bunch.masks[window] = mask[:, None].repeat(1, 1, share, 1)
        return bunch.masks[window]

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        kv, heads, dim = key.shape[0], query.shape[0], query.shape[-1]
        share = heads // kv
        # tokens first, [N, heads, D]: the order in which the model has made them
        query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        out = torch.empty_like(query)
        for bunch in self.bunches:
            count, here = len(bunch.rows), bunch.packed
            q, k, v = (
                tensor.unflatten(0, (count, bunch.new)) if here is None else tensor[here]
                for tensor in (query, key, value)
            )  # [R, new, heads, D]
            keys[bunch.rows[:, None], :, bunch.positions] = k
            values[bunch.rows[:, None], :, bunch.positions] = v
            # query heads that share a key head become queries of it: the cache is never repeated
            asked = q.transpose(1, 2).reshape(count, kv, share * bunch.new, dim)
            if bunch.span:
                k = keys[: bunch.span, :, : bunch.longest]
                v = values[: bunch.span, :, : bunch.longest]
            else:
                k = keys[:, :, : bunch.longest].index_select(0, bunch.rows)
                v = values[:, :, : bunch.longest].index_select(0, bunch.rows)
            gaps = bunch.span > count
            if gaps:
                asked = asked.new_zeros(bunch.span, *asked.shape[1:]).index_copy_(
                    0, bunch.rows, asked
                )
            answer = F.scaled_dot_product_attention(
                asked, k, v, attn_mask=self._mask(bunch, window, share), scale=scale
            )
            if gaps:
                answer = answer.index_select(0, bunch.rows)
            answer = answer.reshape(count, heads, bunch.new, dim).transpose(1, 2)
            if here is None:
                out = answer.flatten(0, 1)
            else:
                out[here] = answer
        return out.transpose(0, 1)
