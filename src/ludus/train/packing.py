"""Cutting work into bins: by a capacity (micro-batches, packed rows), or into k parts of equal cost (ranks).

All functions take sizes and return bins of indices into them; every index occurs exactly once, and the same sizes
always give the same bins. Which tokens count, and how much, is decided before anything is cut: see
ludus.weights.average.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Oversize = Literal["raise", "alone"]


def first_fit_decreasing(
    lengths: Sequence[int], capacity: int, *, oversize: Oversize = "raise"
) -> list[list[int]]:
    """Longest first, each into the first bin with room. At most 11/9 of the fewest bins possible, and one more.

    Args:     lengths >= 1 and capacity in tokens; oversize: a sequence longer than the capacity is an error, or gets a
              bin of its own, where memory allows that.
    Returns:  bins of indices, in the order in which they were opened.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for index in _decreasing(lengths, capacity, oversize):
        length = lengths[index]
        place = next((b for b, free in enumerate(room) if free >= length), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(index)
        room[place] -= length
    return bins


def best_fit_decreasing(
    lengths: Sequence[int], capacity: int, *, oversize: Oversize = "raise"
) -> list[list[int]]:
    """Longest first, each into the fullest bin that still has room, the earliest of equals. n log n.

    Arguments and result as `first_fit_decreasing`; for data sets of many short rows, where a scan of all bins is slow.
    """
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room, bin), ascending
    for index in _decreasing(lengths, capacity, oversize):
        length = lengths[index]
        position = bisect_left(free, (length, -1))
        if position == len(free):
            room, place = capacity, len(bins)
            bins.append([])
        else:
            room, place = free.pop(position)
        bins[place].append(index)
        insort(free, (room - length, place))
    return bins


def karmarkar_karp(sizes: Sequence[float], k: int) -> list[list[int]]:
    """k parts of nearly equal sum, by largest differencing: the two most uneven partitions merge, large onto small.

    No part has to have a member: with fewer sizes than parts some stay empty, and an idle rank then takes part in the
    collectives with a loss of zero. Sizes are tokens, or costs (`attention_cost`) to balance time.

    Args:     sizes >= 0, k >= 1.
    Returns:  k bins of ascending indices, the largest sum first.
    """
    if k < 1:
        raise ValueError(f"k is {k}; give the number of parts, 1 or more")
    if any(not size >= 0 for size in sizes):
        raise ValueError(f"sizes hold {min(sizes)}; give tokens or costs, 0 or more")
    # A partition is k (sum, members), largest first. Order in the heap: spread, then age, so that ties are stable.
    heap = []
    for index, size in enumerate(sizes):
        parts = [(size, [index])] + [(0, [])] * (k - 1)
        heap.append((parts[-1][0] - parts[0][0], index, parts))
    heapq.heapify(heap)
    age = len(heap)
    while len(heap) > 1:
        _, _, one = heapq.heappop(heap)
        _, _, other = heapq.heappop(heap)
        merged = [(s + t, a + b) for (s, a), (t, b) in zip(one, reversed(other), strict=True)]
        merged.sort(key=lambda part: -part[0])
        heapq.heappush(heap, (merged[-1][0] - merged[0][0], age, merged))
        age += 1
    return [sorted(members) for _, members in heap[0][2]] if heap else [[] for _ in range(k)]


def attention_cost(length: int, *, linear: float = 24576.0) -> float:
    """Cost of a sequence of s tokens, in units of one attention score: linear * s + s^2.

    The projections and the MLP cost the same for every token; attention grows with the square. `linear` is 6 x hidden
    size: 24576 for a 7B model with hidden size 4096, for which one sequence of 16k costs 1.25 times two of 8k.
    """
    return linear * length + length * length


@dataclass(frozen=True)
class Piece:
    """Tokens [start, stop) of sequence `index`."""

    index: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def cut(lengths: Sequence[int], capacity: int, *, rest: Literal["drop", "keep"]) -> list[Piece]:
    """Sequences cut to fit: a declared loss (`drop`: truncation), or none (`keep`: the rest becomes a piece).

    For supervised text only. A rollout that is cut has lost the reward of its last token; give it a bin of its own
    (oversize="alone") or filter it.
    """
    _check(lengths, capacity)
    pieces = []
    for index, length in enumerate(lengths):
        end = length if rest == "keep" else min(length, capacity)
        starts = range(0, end, capacity)
        pieces += [Piece(index, start, min(start + capacity, end)) for start in starts]
    return pieces


def padding_waste(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Share of the cells that would be padding, were each batch padded to its longest sequence; 0 without cells."""
    cells = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches if batch)
    return 1 - sum(lengths[i] for batch in batches for i in batch) / cells if cells else 0.0


def _decreasing(lengths: Sequence[int], capacity: int, oversize: Oversize) -> list[int]:
    _check(lengths, capacity)
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])  # stable
    if oversize == "raise" and order and lengths[order[0]] > capacity:
        raise ValueError(
            f"sequence {order[0]} has {lengths[order[0]]} tokens, a bin holds {capacity}; raise the capacity, "
            'give it a bin of its own with oversize="alone", or cut() it'
        )
    return order


def _check(lengths: Sequence[int], capacity: int) -> None:
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}; give tokens, 1 or more")
    if any(length < 1 for length in lengths):
        raise ValueError(f"a length is {min(lengths)}; leave out sequences without tokens")
