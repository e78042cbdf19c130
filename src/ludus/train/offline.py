"""Learning from rollouts that exist: supervised fine-tuning, preference optimisation, and the rounds of AgentEvol.

The strategy is replaced by stored groups; the learner is the same. A preference loss reaches it as credit: DPO's
gradient is a number per sequence times the gradient of its log-probability, computed anew before every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ludus.data.batch import make_batch
from ludus.data.pairs import Pair
from ludus.data.selection import keep_best
from ludus.losses.objective import Objective
from ludus.losses.preference import sequence_logp
from ludus.losses.reinforce import reinforce
from ludus.losses.supervised import sft
from ludus.types import Batch, Group, Key, Learner, Rollout

SUPERVISED = Objective(sft, over="tokens")
"""-log p of the tokens that the agent wrote, as a mean over the tokens of the batch."""

PREFERENCE = Objective(reinforce, over="answer sums")
"""Sums over sequences, as DPO is defined; with two sequences a pair, each counts half (see `dpo_credit`)."""


def supervised(
    learner: Learner, rollouts: Sequence[Rollout], *, epochs: int, size: int, key: Key
) -> Iterator[Mapping[str, float]]:
    """Imitate these rollouts, `size` a step, in a new order each epoch; needs a learner with SUPERVISED.

    Behaviour cloning of AgentGym (arXiv:2406.04151): loss on what the agent wrote alone, its end of turn included.
    """
    for chosen in _shuffled(rollouts, epochs, size, key):
        batch = make_batch([Group(str(i), (rollout,)) for i, rollout in enumerate(chosen)])
        batch = replace(batch, scored=torch.ones_like(batch.scored))
        yield learner.update(replace(batch, advantage=batch.mask.float()))


def preference(
    learner: Learner, pairs: Sequence[Pair], *, beta: float, epochs: int, size: int, key: Key
) -> Iterator[Mapping[str, float]]:
    """DPO, arXiv:2305.18290, `size` pairs a step; needs a learner with PREFERENCE and a reference.

    AgentGym's setting is beta 0.5, three epochs. Each step reports the loss and the share of pairs told apart.
    """
    for chosen in _shuffled(pairs, epochs, size, key):
        groups = [Group(str(i), (pair.chosen, pair.rejected)) for i, pair in enumerate(chosen)]
        batch = learner.annotate(make_batch(groups), ("old_logp",))
        advantage, told = dpo_credit(batch, beta)
        yield {**learner.update(replace(batch, advantage=advantage)), **told}


def dpo_credit(batch: Batch, beta: float) -> tuple[Tensor, dict[str, float]]:
    """The advantage [B,T] under which -A log p, summed, has the gradient of the mean of -log sigmoid(beta Delta).

        d/d log p(chosen) = -beta sigmoid(-beta Delta),   d/d log p(rejected) = +beta sigmoid(-beta Delta)

    Rollouts come in pairs, the chosen first. The factor 2 undoes the mean over two sequences a pair.
    """
    assert batch.old_logp is not None and batch.ref_logp is not None
    gap = (
        sequence_logp(batch.old_logp, batch.mask)[0] - sequence_logp(batch.ref_logp, batch.mask)[0]
    )
    of_rollout = torch.zeros(len(batch.reward)).index_add(0, batch.rollout, gap)
    delta = of_rollout[0::2] - of_rollout[1::2]
    push = 2 * beta * torch.sigmoid(-beta * delta)
    advantage = torch.stack([push, -push], 1).flatten()
    loss = -torch.nn.functional.logsigmoid(beta * delta).mean()
    told = {"dpo/loss": float(loss), "dpo/accuracy": float((delta > 0).float().mean())}
    return batch.spread(advantage), told


@dataclass(frozen=True)
class Round:
    """One round of AgentEvol: how many tasks the explorer solved, and what the new model was taught."""

    number: int
    solved: int
    attempted: int
    taught: int


def agent_evol(
    explore: Callable[[int], Sequence[Group]],
    teach: Callable[[Sequence[Rollout]], None],
    original: Sequence[Rollout] = (),
    *,
    rounds: int = 4,
    above: float = 0.99,
) -> Iterator[Round]:
    """AgentEvol, arXiv:2406.04151: explore with the newest model, keep successes, teach the *first* model anew.

    explore  round number -> groups by the newest model
    teach    makes the newest model: the base model trained on these rollouts
    original demonstrations that every round trains on besides its own successes
    """
    for number in range(1, rounds + 1):
        groups = explore(number)
        selection = keep_best(groups, above=above)
        taught = [*original, *selection.kept]
        teach(taught)
        yield Round(number, len(selection.kept), len(groups), len(taught))


def _shuffled(items: Sequence, epochs: int, size: int, key: Key) -> Iterator[list]:
    if not items:
        raise ValueError("there is nothing to learn from: no rollout or pair was given")
    for epoch in range(epochs):
        order = (key / "epoch" / epoch).generator().permutation(len(items))
        for start in range(0, len(items), size):
            yield [items[i] for i in order[start : start + size]]
