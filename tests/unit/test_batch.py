"""Rollouts to padded tensors: shapes, positions, shared nodes, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ludus.data.batch import make_batch, mean_of_copies
from ludus.data.flatten import flatten, rows
from ludus.types import End, Group, Node, Rollout, Sampling, Task, Turn


def prompt(*tokens: int) -> Node:
    return Node(None, np.array(tokens), role="prompt")


def sampled(parent: Node, *tokens: int, temperature: float = 1.0, version: int = 0) -> Node:
    logprobs = -np.arange(1, len(tokens) + 1, dtype=np.float32) / 10
    return Node(
        parent,
        np.array(tokens),
        trainable=True,
        logprobs=logprobs,
        version=version,
        sampling=Sampling(temperature),
        role="assistant",
    )


def read(parent: Node, *tokens: int) -> Node:
    return Node(parent, np.array(tokens))


def rollout(
    *contexts: Node,
    turns: list[Node] | None = None,
    reward: float = 1.0,
    end: End = End.SOLVED,
    terms: dict[str, float] | None = None,
    turn_rewards: tuple[float, ...] = (),
) -> Rollout:
    done = [
        Turn(node, "", reward=r)
        for node, r in zip(turns or [], turn_rewards or (0.0,) * len(turns or []), strict=True)
    ]
    return Rollout(Task("t17"), contexts, tuple(done), reward, end, terms or {})


def test_every_position_holds_what_belongs_to_its_own_token() -> None:
    first = sampled(prompt(10, 11), 1, 2, version=4)
    second = sampled(read(first, 12), 3, version=5)
    leaf = read(second, 13)
    short = sampled(prompt(10), 7)
    batch = make_batch(
        [
            Group(
                "g", (rollout(leaf, turns=[first, second], reward=2.0, turn_rewards=(0.5, 1.5)),)
            ),
            Group("h", (rollout(short, turns=[short], reward=0.0, end=End.FAILED),)),
        ]
    )
    T, F = True, False
    assert batch.tokens.tolist() == [[10, 11, 1, 2, 12, 3, 13], [10, 7, -1, -1, -1, -1, -1]]
    assert batch.mask.tolist() == [[F, F, T, T, F, T, F], [F, T, F, F, F, F, F]]
    assert batch.turn.tolist() == [[-1, -1, 0, 0, -1, 1, -1], [-1, 0, -1, -1, -1, -1, -1]]
    torch.testing.assert_close(
        batch.logp, torch.tensor([[0, 0, -0.1, -0.2, 0, -0.1, 0], [0, -0.1, 0, 0, 0, 0, 0]])
    )
    assert batch.rollout.tolist() == [0, 1] and batch.group.tolist() == [0, 1]
    assert batch.reward.tolist() == [2, 0] and batch.scored.tolist() == [True, True]
    assert batch.turn_reward.tolist() == [[0.5, 1.5], [0, 0]]
    assert batch.baseline is None and batch.lengths().tolist() == [7, 2]
    types = (batch.tokens.dtype, batch.mask.dtype, batch.logp.dtype, batch.reward.dtype)
    assert types == (torch.int64, torch.bool, torch.float32, torch.float32)
    assert rows(rollout(leaf, turns=[first, second]))[0].version.tolist() == [
        -1,
        -1,
        4,
        4,
        -1,
        5,
        -1,
    ]


def test_contexts_are_rows_and_rollouts_are_counted_once() -> None:
    summary = sampled(sampled(prompt(10), 1), 2)  # written at the end of the first context
    later = sampled(Node(None, np.array([11]), role="prompt", origin=summary), 3)
    first = summary.parent
    assert first is not None
    one = rollout(summary, later, turns=[first, later], reward=3.0)
    two = rollout(sampled(prompt(10), 4))
    batch = make_batch([Group("g", (one, two), baseline=0.5)])
    assert batch.rollout.tolist() == [0, 0, 1] and batch.group.tolist() == [0, 0]
    assert batch.reward.tolist() == [3, 1]
    # the summary belongs to no turn of its own: it counts with the turn before it
    assert batch.turn.tolist() == [[-1, 0, 0], [-1, 1, -1], [-1, 0, -1]]
    assert batch.baseline is not None and batch.baseline.tolist() == [0.5, 0.5]


def test_a_shared_node_is_trained_in_its_first_row_that_may_be_scored() -> None:
    shared = sampled(prompt(10), 1, 2)
    crashed = rollout(sampled(read(shared, 11), 3), end=End.ENV_CRASHED, reward=float("nan"))
    good = [rollout(sampled(read(shared, 11), n), reward=float(n)) for n in (4, 5)]
    groups = [Group("g", (crashed, *good))]
    batch = make_batch(groups)
    F, T = False, True
    assert batch.mask.tolist() == [[F, F, F, F, T], [F, T, T, F, T], [F, F, F, F, T]]
    assert batch.scored.tolist() == [False, True, True] and batch.reward.tolist() == [0, 4, 5]

    every = make_batch(groups, share="every")
    assert int(every.mask.sum()) == 9
    mean = mean_of_copies(replace(every, advantage=every.spread(every.reward)), groups)
    assert mean.mask.equal(batch.mask)
    assert mean.advantage is not None
    assert mean.advantage.tolist() == [[0, 0, 0, 0, 0], [0, 4.5, 4.5, 0, 4], [0, 0, 0, 0, 5]]
    with pytest.raises(ValueError, match="without advantages"):
        mean_of_copies(every, groups)


def test_flattening_leaves_the_trace_as_it_was() -> None:
    shared = sampled(prompt(10), 1)
    both = [rollout(sampled(shared, 2)), rollout(sampled(shared, 3))]
    assert [row.mask.sum() for _, row in flatten(both)] == [2, 1]
    assert [row.mask.sum() for _, row in flatten(both[::-1])] == [2, 1]
    assert rows(both[1])[0].mask.tolist() == [False, True, True]


def test_a_rollout_that_ended_before_it_began_has_no_row() -> None:
    lost = rollout(end=End.ENGINE_LOST)
    batch = make_batch([Group("g", (lost, rollout(sampled(prompt(1), 2))))])
    assert batch.rollout.tolist() == [1] and batch.scored.tolist() == [False, True]
    alone = make_batch([Group("g", (lost,))])
    assert alone.tokens.shape == (0, 0) and alone.reward.shape == (1,)
    assert alone.turn_reward.shape == (1, 1)


def test_a_reward_that_is_no_number_names_task_and_term() -> None:
    node = sampled(prompt(1), 2)
    nan = float("nan")
    bad = rollout(node, turns=[node], reward=nan, terms={"format": 1.0, "judge": nan})
    with pytest.raises(
        ValueError, match=r"task 't17' has reward nan: its term 'judge' is nan; .*JUDGE_ERROR"
    ):
        make_batch([Group("g", (bad,))])
    with pytest.raises(
        ValueError, match=r"task 't17' has reward inf: its terms \{'a': 1.0\} are finite"
    ):
        make_batch([Group("g", (rollout(node, reward=float("inf"), terms={"a": 1.0}),))])
    with pytest.raises(ValueError, match="the reward of turn 0 is nan"):
        make_batch([Group("g", (rollout(node, turns=[node], turn_rewards=(nan,)),))])
    assert make_batch([Group("g", (replace(bad, end=End.JUDGE_ERROR),))]).reward.tolist() == [0]


def test_what_cannot_be_one_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="1 groups hold no rollouts"):
        make_batch([Group("g", ())])
    one = rollout(sampled(prompt(1), 2))
    with pytest.raises(ValueError, match=r"1 of 2 groups have no baseline \(such as 'h'\)"):
        make_batch([Group("g", (one,), baseline=0.0), Group("h", (one,))])
    hot = rollout(sampled(prompt(1), 2, temperature=1.5))
    with pytest.raises(ValueError, match=r"temperatures \[1.0, 1.5\]"):
        make_batch([Group("g", (one, hot))])
    assert make_batch([Group("g", (hot,))]).temperature == 1.5
    assert (
        make_batch([Group("g", (rollout(sampled(prompt(1), 2, temperature=0)),))]).temperature == 1
    )
    elsewhere = sampled(prompt(1), 3)
    with pytest.raises(ValueError, match=r"task 't17': what was sampled in turns \[1\] is in none"):
        make_batch([Group("g", (rollout(one.contexts[0], turns=[one.contexts[0], elsewhere]),))])
