"""Pinned numbers of Reinforce-Ada, arXiv:2510.04996: rounds, the balanced group, and the baseline of the pool."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ludus.advantages.pool import PoolBaseline, over_pool
from ludus.advantages.relative import dr_grpo
from ludus.curricula.adaptive import Adaptive, Rule, balanced, exits, pooled
from ludus.data.batch import make_batch
from ludus.types import End, Group, Key, Node, Rollout, Sampling, Task

TASKS = [Task("a"), Task("b"), Task("c")]
FIRST, SECOND = [0, 0, 0, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]


def group(task: Task, rewards: Sequence[float], end: End = End.FAILED) -> Group:
    def leaf() -> Node:
        root = Node(None, np.array([1]), role="prompt")
        return Node(root, np.array([2, 3]), True, np.full(2, -1.0, np.float32), 0, Sampling())

    return Group(task.id, tuple(Rollout(task, (leaf(),), (), float(r), end) for r in rewards))


def test_two_rounds_and_a_baseline_of_sixteen() -> None:
    ada = Adaptive()
    state, asked = ada.draw(ada.init(TASKS[:1]), TASKS[:1], 1, Key(0))
    (request,) = asked
    assert request.answers == 8 and request.task is TASKS[0]
    groups = [group(TASKS[0], FIRST)]
    state, asked = ada.more(state, groups)
    assert [r.answers for r in asked] == [8]  # one right, seven wrong: not enough
    groups.append(group(TASKS[0], SECOND))
    state, asked = ada.more(state, groups)
    assert asked == []
    (kept,) = ada.select(state, groups)
    assert [r.reward for r in kept.rollouts] == [1, 1, 0, 0]
    assert kept.baseline == 2 / 16
    # taken in the order of sampling
    whole = pooled(groups)[0].rollouts
    assert kept.rollouts == (whole[3], whole[9], whole[0], whole[1])
    batch = make_batch([kept])
    advantage = PoolBaseline()(batch).advantage
    assert advantage[:, 1].tolist() == [0.875, 0.875, -0.125, -0.125]
    assert (advantage[:, 0] == 0).all() and torch.equal(advantage[:, 1], advantage[:, 2])
    # the group's own mean would say one half of every task
    assert dr_grpo(batch.reward, batch.group).tolist() == [0.5, 0.5, -0.5, -0.5]


def test_amplification() -> None:
    """A balanced group updates by c(p) n grad p: grad log pi is grad p / p, or -grad p / (1 - p) if wrong."""
    for p, c in [(0.5, 1.0), (0.125, 3.571429), (0.875, 3.571429), (0.02, 24.510204)]:
        assert ((1 - p) ** 2 + p**2) / (2 * p * (1 - p)) == pytest.approx(c, abs=1e-6)
        reward = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
        advantage = over_pool(reward, torch.full_like(reward, p))
        score = torch.where(reward > 0, 1 / p, -1 / (1 - p))
        assert (advantage * score).sum().item() == pytest.approx(c * 4)


def test_with_one_round_and_no_choice_it_is_grpo_without_deviation() -> None:
    ada = Adaptive(ask=4, rounds=1)
    state, _ = ada.draw(ada.init(TASKS), TASKS, 2, Key(0))
    groups = [group(TASKS[0], [1, 0, 1, 1]), group(TASKS[1], [0, 0, 0, 1])]
    assert ada.more(state, groups) == (state, [])
    for made in groups:
        reward = torch.tensor([r.reward for r in made.rollouts], dtype=torch.float64)
        same = torch.zeros(4, dtype=torch.int64)
        got = over_pool(reward, reward.mean().expand(4))
        torch.testing.assert_close(got, dr_grpo(reward, same), atol=1e-12, rtol=0)
    # every rollout is kept, the right ones first
    kept = ada.select(state, groups)
    assert [sorted(r.reward for r in g.rollouts) for g in kept] == [[0, 1, 1, 1], [0, 0, 0, 1]]


def test_over_the_deviation_of_the_pool() -> None:
    """Two of sixteen right: unbiased deviation sqrt(16/15 * 1/8 * 7/8) = .341565."""
    pool = torch.tensor(FIRST + SECOND, dtype=torch.float64)
    assert pool.std().item() == pytest.approx(0.341565, abs=1e-6)
    reward = torch.tensor([1.0, 0.0], dtype=torch.float64)
    got = over_pool(reward, pool.mean().expand(2), pool.std().expand(2))
    assert got.tolist() == pytest.approx([2.561738, -0.365963], abs=2e-5)
    lost = over_pool(
        torch.tensor([1.0, math.nan]), torch.zeros(2), scored=torch.tensor([True, False])
    )
    assert lost.tolist() == [1.0, 0.0]


def test_one_sided_pools_teach_nothing() -> None:
    ada = Adaptive()
    for rewards in ([1.0] * 32, [0.0] * 32):
        (kept,) = ada.select({"inner": 0, "round": 4}, [group(TASKS[0], rewards)])
        assert len(kept.rollouts) == 4
        assert (PoolBaseline()(make_batch([kept])).advantage == 0).all()


@pytest.mark.parametrize(
    ("right", "wrong", "kept"),
    [
        (9, 7, (2, 2)),
        (1, 15, (1, 3)),
        (0, 16, (0, 4)),
        (15, 1, (3, 1)),
        (16, 0, (4, 0)),
        (1, 1, (1, 1)),
        (0, 0, (0, 0)),
    ],
)
def test_the_group_is_filled_from_the_side_that_has_more(
    right: int, wrong: int, kept: tuple[int, int]
) -> None:
    chosen = balanced([True] * right + [False] * wrong, 4)
    assert (sum(i < right for i in chosen), sum(i >= right for i in chosen)) == kept
    assert len(set(chosen)) == len(chosen)


def test_odd_groups_and_exits() -> None:
    assert balanced([True] * 9 + [False] * 9, 5) == [0, 1, 9, 10, 11]
    assert exits(2, 3, keep=5, rule="balanced") and not exits(3, 2, keep=5, rule="balanced")
    assert exits(1, 0, keep=4, rule="positive") and not exits(0, 8, keep=4, rule="positive")


def test_lost_rollouts_are_neither_right_nor_wrong() -> None:
    ada = Adaptive()
    state, _ = ada.draw(ada.init(TASKS), TASKS, 2, Key(0))
    lost = group(TASKS[0], [1.0] * 8, End.ENV_CRASHED)
    some = Group(
        "b",
        group(TASKS[1], [1, 1, 0, 0]).rollouts + group(TASKS[1], [1] * 4, End.JUDGE_ERROR).rollouts,
    )
    state, asked = ada.more(state, [lost, some])
    assert [r.task.id for r in asked] == ["a"]
    first, second = ada.select(state, [lost, some])
    assert (
        first.rollouts == lost.rollouts and first.baseline == 0.0
    )  # counted as lost, not learnt from
    assert (PoolBaseline()(make_batch([first])).advantage == 0).all()
    assert second.baseline == 0.5 and len(second.rollouts) == 4


def test_rounds_end_and_state_is_json() -> None:
    ada = Adaptive(rounds=3)
    state, asked = ada.draw(ada.init(TASKS), TASKS, 3, Key(0))
    groups = [group(r.task, [0] * 8) for r in asked]
    counts = [len(asked)]
    while asked:
        state, asked = ada.more(json.loads(json.dumps(state)), groups)
        groups += [group(r.task, [0] * 7 + [r.task.id == "b"]) for r in asked]
        counts.append(len(asked))
    assert counts == [3, 3, 3, 0]
    assert {g.key: len(g.rollouts) for g in pooled(groups)} == {"a": 24, "b": 24, "c": 24}
    after, _ = ada.draw(ada.update(state, groups), TASKS, 1, Key(0) / 1)
    assert after["round"] == 1
    with pytest.raises(ValueError, match="keep=2 or more"):
        Adaptive(keep=1)
    with pytest.raises(ValueError, match="no group has a baseline"):
        PoolBaseline()(make_batch([group(TASKS[0], [1, 0])]))


# mixed share and mean samples of a task, at success rates .02, .1, .5 and .9
RATES = (0.02, 0.1, 0.5, 0.9)
PLAIN = (0.0776, 0.3438, 0.875, 0.3438)
EXPECTED: list[tuple[Rule, tuple[float, ...], tuple[float, ...]]] = [
    ("balanced", (0.4761, 0.9657, 1.0, 0.9657), (30.94, 20.96, 8.57, 20.96)),
    ("positive", (0.4761, 0.9657, 0.9961, 0.5695), (25.52, 13.56, 8.03, 8.00)),
]


def simulated(rate: float, rule: Rule, prompts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(mixed, samples) of each of so many tasks, by the rules themselves: keep 4, ask 8, 4 rounds."""
    luck = np.random.default_rng(seed).random((prompts, 32)) < rate
    mixed, samples = np.zeros(prompts), np.zeros(prompts)
    for i, answers in enumerate(luck.tolist()):
        size = 8
        while size < 32 and not exits(
            sum(answers[:size]), size - sum(answers[:size]), keep=4, rule=rule
        ):
            size += 8
        kept = [answers[j] for j in balanced(answers[:size], 4)]
        mixed[i], samples[i] = len(set(kept)) > 1, size
    return mixed, samples


@pytest.mark.parametrize(("rule", "shares", "sizes"), EXPECTED, ids=["balanced", "positive"])
def test_exact_expectations(rule: Rule, shares: Any, sizes: Any) -> None:
    for seed, (rate, plain, share, size) in enumerate(
        zip(RATES, PLAIN, shares, sizes, strict=True)
    ):
        assert 1 - rate**4 - (1 - rate) ** 4 == pytest.approx(plain, abs=5.1e-5)
        mixed, samples = simulated(rate, rule, 2000, seed)
        for got, want, rounding in ((mixed, share, 5e-5), (samples, size, 5e-3)):
            error = got.std() / math.sqrt(len(got))
            assert abs(got.mean() - want) < 3 * error + rounding, (rule, rate, got.mean(), want)
