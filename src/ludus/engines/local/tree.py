"""Rows of tokens to one packed tree, in which a prefix that several rows share is present once.

The answers of a group share their prompt; branches of a search share their history. The tree computes each distinct
token once, forward and backward: the cost follows the number of distinct tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ludus.engines.local.attention import Segment


@dataclass(frozen=True)
class Packed:
    """ids, positions [N] of the packed tokens; `index[i][t]` is where token t of row i stands among them."""

    ids: np.ndarray
    positions: np.ndarray
    segments: tuple[Segment, ...]
    index: tuple[np.ndarray, ...]


def pack(rows: Sequence[np.ndarray], least: int = 8) -> Packed:
    """The prefix tree of some rows of token ids. Fewer than `least` tokens in common are not worth a branch."""
    order = sorted(range(len(rows)), key=lambda i: rows[i].astype(">i8").tobytes())
    index = [np.empty(len(row), np.int64) for row in rows]
    ids: list[np.ndarray] = []
    segments: list[Segment] = []
    size = 0

    def emit(members: Sequence[int], start: int, stop: int, parent: int) -> int:
        nonlocal size
        segments.append(Segment(size, size + stop - start, parent, start))
        ids.append(rows[members[0]][start:stop])
        for i in members:
            index[i][start:stop] = np.arange(size, size + stop - start)
        size += stop - start
        return len(segments) - 1

    # members are in lexicographic order and agree on their first `depth` tokens
    todo: list[tuple[list[int], int, int]] = [(order, 0, -1)]
    while todo:
        members, depth, parent = todo.pop()
        if len(members) == 1:
            if len(rows[members[0]]) > depth:
                emit(members, depth, len(rows[members[0]]), parent)
            continue
        common = _common(rows[members[0]], rows[members[-1]])
        if common - depth >= least or (common > depth and common == len(rows[members[-1]])):
            parent, depth = emit(members, depth, common, parent), common
            members = [i for i in members if len(rows[i]) > depth]
        runs = _runs(rows, members, depth, least)
        todo.extend((run, depth, parent) for run in reversed(runs))
    return Packed(
        np.concatenate(ids) if ids else np.zeros(0, np.int64),
        np.concatenate([np.arange(s.position, s.position + s.stop - s.start) for s in segments])
        if segments
        else np.zeros(0, np.int64),
        tuple(segments),
        tuple(index),
    )


def _common(one: np.ndarray, other: np.ndarray) -> int:
    n = min(len(one), len(other))
    different = np.flatnonzero(one[:n] != other[:n])
    return int(different[0]) if len(different) else n


def _runs(
    rows: Sequence[np.ndarray], members: Sequence[int], depth: int, least: int
) -> list[list[int]]:
    """Neighbours in order that have at least `least` more tokens in common, or are equal, belong together."""
    runs: list[list[int]] = []
    for i in members:
        if runs:
            before = rows[runs[-1][0]]
            common = _common(before, rows[i])
            if common - depth >= least or common == len(before) == len(rows[i]):
                runs[-1].append(i)
                continue
        runs.append([i])
    return runs
