"""Groups of rollouts to one training step of padded tensors (`types.Batch`)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ludus.data.flatten import Share, flatten
from ludus.types import EXTERNAL, Batch, Group, Node, Rollout, Soft

PADDING = -1  # never a token, so that a forgotten mask is an index error and not a wrong gradient


def make_batch(groups: Sequence[Group], *, share: Share = "first") -> Batch:
    """One row for each context, padded on the right with token -1; see `types.Batch` for shapes.

    Rows keep the order of groups, rollouts and contexts. `share` says where a node in several rows is trained: in the
    first ("first"), or in each, until `mean_of_copies` ("every"). The reward of a rollout that may not be scored is
    not read and stands as 0.

    Raises ValueError where a reward is not a number, where only some groups have a baseline, where tokens were
    sampled at different temperatures or vectors with different noise (their log-probabilities cannot be recomputed as
    one batch), or where vectors without noise, which have no density, are to be trained on.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    if not rollouts:
        raise ValueError(
            f"{len(groups)} groups hold no rollouts; a batch wants at least one, so collect groups with answers first"
        )
    for rollout in rollouts:
        _check_rewards(rollout)
    flat = flatten(rollouts, share)
    lengths = [len(row) for _, row in flat]
    shape = (len(flat), max(lengths, default=0))
    tokens = np.full(shape, PADDING, dtype=np.int64)
    mask = np.zeros(shape, dtype=bool)
    logp = np.zeros(shape, dtype=np.float32)
    turn = np.full(shape, -1, dtype=np.int64)
    external = np.zeros(shape, dtype=bool)
    for index, ((_, row), length) in enumerate(zip(flat, lengths, strict=True)):
        tokens[index, :length] = row.tokens
        mask[index, :length] = row.mask
        logp[index, :length] = row.logp
        turn[index, :length] = row.turn
        for node, start, stop in row.spans:
            external[index, start:stop] = row.mask[start:stop] & (node.role == EXTERNAL)

    scored = [rollout.end.scorable for rollout in rollouts]
    turns = max(1, *(len(rollout.turns) for rollout in rollouts))
    turn_reward = np.zeros((len(rollouts), turns), dtype=np.float32)
    anchor = np.full((len(rollouts), turns), -1, dtype=np.int64)
    numbers: dict[tuple[int, Hashable], int] = {}
    owner = [index for index, group in enumerate(groups) for _ in group.rollouts]
    for index, rollout in enumerate(rollouts):
        for place, each in enumerate(rollout.turns):
            if each.anchor is not None:
                name = (owner[index], each.anchor)
                anchor[index, place] = numbers.setdefault(name, len(numbers))
        if scored[index]:
            turn_reward[index, : len(rollout.turns)] = [t.reward for t in rollout.turns]
    return Batch(
        tokens=torch.from_numpy(tokens),
        mask=torch.from_numpy(mask),
        logp=torch.from_numpy(logp),
        turn=torch.from_numpy(turn),
        rollout=torch.tensor([index for index, _ in flat], dtype=torch.int64),
        group=torch.tensor(owner, dtype=torch.int64),
        reward=torch.tensor(
            [r.reward if ok else 0.0 for r, ok in zip(rollouts, scored, strict=True)],
            dtype=torch.float32,
        ),
        scored=torch.tensor(scored),
        turn_reward=torch.from_numpy(turn_reward),
        baseline=_baseline(groups),
        solved=torch.tensor([rollout.solved for rollout in rollouts]),
        anchor=torch.from_numpy(anchor),
        external=torch.from_numpy(external),
        terms=_terms(rollouts),
        inputs={
            n: each
            for _, row in flat
            for node, _, _ in row.spans
            for n, each in node.inputs.items()
        },
        temperature=_temperature(rollouts),
        soft=_soft(rollouts),
    )


def mean_of_copies(batch: Batch, groups: Sequence[Group]) -> Batch:
    """The mean rule for shared nodes: a batch made with share="every", whose advantage is known, to one to train on.

        A(node) = mean of A over the rows that hold it (all of them copies of the same sampled tokens)

    Each shared node keeps its tokens in the row where the rule "first" trains them, with that advantage; its other
    copies get mask False and advantage 0. Only rows of scored rollouts count, where there is one.
    """
    if batch.advantage is None:
        raise ValueError(
            "mean_of_copies got a batch without advantages; make it with share='every', assign credit, and pass "
            "replace(batch, advantage=credit(batch))"
        )
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    copies: dict[Node, list[tuple[int, int, int]]] = {}
    kept = np.zeros(batch.mask.shape, dtype=bool)
    for index, (of, row) in enumerate(flatten(rollouts, "first")):
        kept[index, : len(row)] = row.mask
        for node, start, stop in row.spans:
            if node.trainable and rollouts[of].end.scorable:
                copies.setdefault(node, []).append((index, start, stop))
    mask = torch.from_numpy(kept).to(batch.mask.device)
    mean = batch.advantage.clone()
    for places in copies.values():
        if len(places) > 1:
            of_node = [batch.advantage[index, start:stop] for index, start, stop in places]
            for index, start, stop in places:
                mean[index, start:stop] = torch.stack(of_node).mean(0)
    return replace(batch, mask=mask, advantage=mean * mask)


def _check_rewards(rollout: Rollout) -> None:
    if not rollout.end.scorable:
        return
    terms = [f"its term {n!r} is {v}" for n, v in rollout.terms.items() if not math.isfinite(v)]
    turns = [
        f"the reward of turn {k} is {turn.reward}"
        for k, turn in enumerate(rollout.turns)
        if not math.isfinite(turn.reward)
    ]
    if turns or not math.isfinite(rollout.reward):
        causes = ", ".join(terms + turns) or f"its terms {dict(rollout.terms)} are finite"
        raise ValueError(
            f"task {rollout.task.id!r} has reward {rollout.reward}: {causes}; where a reward cannot be computed, end "
            "the rollout with End.JUDGE_ERROR, which is not scored"
        )


def _baseline(groups: Sequence[Group]) -> Tensor | None:
    missing = [group.key for group in groups if group.baseline is None]
    if len(missing) == len(groups):
        return None
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(groups)} groups have no baseline (such as {missing[0]!r}); give every group of a "
            "batch one, or none"
        )
    return torch.tensor(
        [group.baseline for group in groups for _ in group.rollouts], dtype=torch.float32
    )


def _terms(rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
    """Of a rollout that may not be scored no term is read."""
    names = sorted({name for r in rollouts if r.end.scorable for name in r.terms})
    return {
        name: torch.tensor(
            [float(r.terms.get(name, math.nan)) if r.end.scorable else math.nan for r in rollouts]
        )
        for name in names
    }


def _temperature(rollouts: Sequence[Rollout]) -> float:
    found = {
        node.sampling.temperature
        for rollout in rollouts
        for leaf in rollout.contexts
        for node in leaf.chain()
        if node.trainable and node.sampling is not None
    }
    if len(found) > 1:
        raise ValueError(
            f"tokens of this batch were sampled at temperatures {sorted(found)}; a batch has one, so sample at one "
            "temperature, or train on them in separate batches"
        )
    # A greedy choice has no distribution to compare with; what learns from it learns at temperature 1.
    return (found.pop() if found else 1.0) or 1.0


def _soft(rollouts: Sequence[Rollout]) -> Soft | None:
    found = {
        node.sampling.soft
        for rollout in rollouts
        for leaf in rollout.contexts
        for node in leaf.chain()
        if node.trainable and node.sampling is not None and node.sampling.soft is not None
    }
    if len(found) > 1:
        raise ValueError(
            f"vectors of this batch were sampled with {sorted(map(str, found))}; a batch has one setting, so sample "
            "with one, or train on them in separate batches"
        )
    soft = found.pop() if found else None
    if soft is not None and not soft.sigma:
        raise ValueError(
            f"vectors of this batch were sampled with {soft}, so they have no density and nothing is learnt from "
            "them; sample with noise, or make nodes of such vectors with trainable=False"
        )
    return soft
