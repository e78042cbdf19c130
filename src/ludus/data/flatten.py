"""Rows from traces: each context of a rollout as flat arrays, each sampled token trained once.

A context is a chain of nodes, and contexts may share nodes: branches of a tree, a summary written halfway. A shared
node was sampled once, so it must be trained once, or its gradient counts as often as it has branches: a node of 4
tokens under 3 branches with advantages 1, -.5, -.5 would give 12 token-gradients (summing to 0), and under 3 branches
of one rollout with reward R, three times R. Two rules give one:

    first  the node is trained in the first row that holds it, with that row's advantage (weight 1 above; R)
    mean   it is trained in the same row, with the mean advantage of all rows that hold it (0 above; R)

`flatten(..., share="first")` marks the rows for the first rule. For the mean, advantages must be known on every copy:
`share="every"`, credit, then `mean_of_copies` (ludus.data.batch). Rows of rollouts that may be scored come first in
this order, so that no token loses its place to a copy whose rollout has no say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ludus.types import Node, Rollout

Share = Literal["first", "every"]


@dataclass(frozen=True)
class Row:
    """One context, flat; position t of each array [T] holds what belongs to token t.

    mask     chosen by the policy in training (and trained in this row)
    logp     as sampled, 0 where nobody sampled
    turn     index of the turn, -1 where the policy did not write. What it wrote outside any turn (a summary, a plan)
             counts with the turn before it, or with turn 0
    version  of the weights that sampled, -1 where nobody did
    spans    (node, start, stop) in order
    """

    tokens: np.ndarray  # int64
    mask: np.ndarray  # bool
    logp: np.ndarray  # float32
    turn: np.ndarray  # int64
    version: np.ndarray  # int64
    spans: tuple[tuple[Node, int, int], ...]

    def __len__(self) -> int:
        return len(self.tokens)


def rows(rollout: Rollout) -> list[Row]:
    """One row for each context of the rollout; the mask says who wrote, whatever other rows hold."""
    flat = [_row(leaf, rollout) for leaf in rollout.contexts]
    held = {node for row in flat for node, _, _ in row.spans}
    lost = [index for index, turn in enumerate(rollout.turns) if turn.node not in held]
    if lost:
        raise ValueError(
            f"task {rollout.task.id!r}: what was sampled in turns {lost} is in none of the rollout's {len(flat)} "
            "contexts, so it would never be learnt from; put the leaf of every context into Rollout(contexts=...)"
        )
    return flat


def flatten(rollouts: Sequence[Rollout], share: Share = "first") -> list[tuple[int, Row]]:
    """(index of its rollout, row) for every context, in order; with "first", each node is trained in one row."""
    flat = [(index, row) for index, rollout in enumerate(rollouts) for row in rows(rollout)]
    if share == "every":
        return flat
    seen: set[Node] = set()
    for _, row in sorted(flat, key=lambda entry: not rollouts[entry[0]].end.scorable):
        for node, start, stop in row.spans:
            if node in seen:
                row.mask[start:stop] = False
            elif node.trainable:
                seen.add(node)
    return flat


def _row(leaf: Node, rollout: Rollout) -> Row:
    turns = {turn.node: index for index, turn in enumerate(rollout.turns)}
    size = leaf.length
    row = Row(
        tokens=leaf.context().astype(np.int64, copy=False),
        mask=np.zeros(size, dtype=bool),
        logp=np.zeros(size, dtype=np.float32),
        turn=np.full(size, -1, dtype=np.int64),
        version=np.full(size, -1, dtype=np.int64),
        spans=(),
    )
    spans: list[tuple[Node, int, int]] = []
    start, turn = 0, 0
    for node in leaf.chain():
        stop = start + len(node.tokens)
        turn = turns.get(node, turn)
        row.mask[start:stop] = node.trainable
        row.version[start:stop] = node.version
        if node.logprobs is not None:
            row.logp[start:stop] = node.logprobs
        if node.trainable:
            row.turn[start:stop] = turn
        spans.append((node, start, stop))
        start = stop
    return Row(row.tokens, row.mask, row.logp, row.turn, row.version, tuple(spans))
