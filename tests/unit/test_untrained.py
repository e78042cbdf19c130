"""Turns that are read and compared with, but not learnt from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ludus.data.batch import make_batch
from ludus.rollouts.untrained import Untrained, cut_off, summaries, without
from ludus.types import End, Group, Key, Node, Request, Rollout, Task, Turn

TASK = Task("t")


def written(parent: Node) -> Node:
    return Node(parent, np.array([7, 8]), True, np.zeros(2, np.float32), 0, role="assistant")


def two_contexts(end: End) -> Rollout:
    """An action and a summary in one context, an action in the next, which came from the summary."""
    prompt = Node(None, np.array([1, 2, 3]))
    first = written(prompt)
    summary = written(Node(first, np.array([4])))
    second = written(Node(None, np.array([1, 5]), origin=summary))
    turns = (Turn(first, "a"), Turn(summary, "s", info={"summary": True}), Turn(second, "b"))
    return Rollout(TASK, (summary, second), turns, 1.0, end)


def masked(rollout: Rollout) -> list[list[int]]:
    return make_batch([Group("t", (rollout,))]).mask.int().tolist()


def test_an_attempt_that_was_cut_off_is_not_learnt_from_and_keeps_its_reward() -> None:
    whole = two_contexts(End.SOLVED)
    assert without(whole, cut_off) is whole
    cut = without(two_contexts(End.OUT_OF_TURNS), cut_off)
    assert not np.any(masked(cut)) and cut.reward == 1.0 and cut.end.scorable
    assert np.any(masked(whole))


def test_summaries_can_be_left_out_alone() -> None:
    rollout = without(two_contexts(End.SOLVED), summaries)
    assert masked(rollout) == [[0, 0, 0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]]
    first, summary, second = (turn.node for turn in rollout.turns)
    assert rollout.contexts == (summary, second) and summary.chain()[1] is first
    assert second.chain()[0].origin is summary  # it still knows where it came from
    assert summary.logprobs is not None and not summary.trainable


def test_the_strategy_is_asked_and_its_rollouts_are_changed() -> None:
    async def strategy(request: Request, sampler: Any, env: Any, key: Key) -> Rollout:
        return two_contexts(End.OUT_OF_TOKENS)

    coroutine = Untrained(strategy, cut_off)(Request(TASK, 1, 1), None, None, Key(0))  # type: ignore[arg-type]
    try:
        coroutine.send(None)
    except StopIteration as done:
        assert not np.any(masked(done.value[0]))
