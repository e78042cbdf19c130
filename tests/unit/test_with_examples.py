"""Examples by somebody else, from the text that a curriculum names to the tokens in a group; worlds put together."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.helpers import sampler

from ludus.curricula.examples import EXAMPLE, Examples
from ludus.curricula.ordered import Ordered
from ludus.data.batch import make_batch
from ludus.engines.local.engine import LocalEngine
from ludus.envs.small.forks import Forks
from ludus.envs.together import Together
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.single_turn import SingleTurn
from ludus.rollouts.with_examples import WithExamples
from ludus.types import EXTERNAL, CannotFork, End, Key, Message, Request, Sampling, Task

WORLD = Forks(forks=2, fill=1, needed=(0, 1), train=8, test=8)
KEY = Key(0)


def groups(strategy: WithExamples, curriculum: Examples, env: Any = WORLD) -> Any:
    tasks = WORLD.tasks("train")
    state, drawn = curriculum.draw(curriculum.init(tasks), tasks, 2, KEY)
    asked = [replace(request, max_turns=1) for request in drawn]
    engine = LocalEngine(sampler())
    found = engine.collect(strategy, asked, env, KEY)
    engine.close()
    return state, found, curriculum.select(state, found)


def test_one_example_joins_the_answers_of_its_own_task() -> None:
    strategy = WithExamples(AgentLoop(Sampling(max_tokens=64)))
    state, found, selected = groups(strategy, Examples(lambda task: task.answer, answers=3))
    assert state == 2 and len(found) == 4
    assert [len(group.rollouts) for group in selected] == [4, 4]
    for group in selected:
        *own, example = group.rollouts
        assert {rollout.task.id for rollout in group.rollouts} == {group.key}
        assert all(r.agent == "policy" and EXAMPLE not in r.task.extras for r in own)
        assert example.agent == EXTERNAL and example.solved and example.reward == 1.0
        node = example.turns[0].node
        assert node.role == EXTERNAL and node.logprobs is None and node.version == -1
        assert example.turns[0].action == example.task.answer
        # the same prompt as the policy's own, and the end of the turn is part of what is learnt
        assert np.array_equal(node.parent.tokens, own[0].turns[0].node.parent.tokens)
        assert node.tokens[-1] == sampler().renderer.tokenizer.eos_token_id
    batch = make_batch(selected)
    assert batch.external is not None
    assert batch.external.any(1).tolist() == [False, False, False, True] * 2
    assert bool((batch.external <= batch.mask).all())


def test_an_example_earns_what_it_is_worth_and_is_cut_like_an_answer() -> None:
    curriculum = Examples(lambda task: "east", answers=1)
    strategy = WithExamples(AgentLoop(Sampling(max_tokens=2)))
    _, _, selected = groups(strategy, curriculum)
    for group in selected:
        example = group.rollouts[-1]
        assert example.end is End.FAILED and example.reward == 0.0
        assert len(example.turns[0].node.tokens) == 2


def test_without_an_environment_the_reward_decides_later() -> None:
    task = Task("t", (Message("user", "red blue"),), extras={EXAMPLE: "east"})
    strategy = WithExamples(SingleTurn(Sampling(max_tokens=8)))
    rollout = asyncio.run(strategy(Request(task, 1, 1), sampler(), None, KEY))
    assert rollout.agent == EXTERNAL and rollout.end is End.FAILED
    assert rollout.turns[0].action == "east" and rollout.opening == task.prompt


def test_evaluation_never_meets_an_example() -> None:
    strategy = WithExamples(AgentLoop(Sampling(max_tokens=4)))
    engine = LocalEngine(sampler())
    found = engine.collect(strategy, [Request(t, 1, 1) for t in WORLD.tasks("test")], WORLD, KEY)
    engine.close()
    assert all(r.agent == "policy" for group in found for r in group.rollouts)


# ------------------------------------------------------------------------------ order, worlds together


@pytest.mark.parametrize("draws", [5, 12, 40])
@pytest.mark.parametrize("hardest_first", [False, True])
def test_one_walk_by_difficulty(draws: int, hardest_first: bool) -> None:
    tasks = [Task(str(i), difficulty=i % 4) for i in range(12)]
    curriculum = Ordered(draws, hardest_first)
    state, seen = curriculum.init(tasks), list[float]()
    for _ in range(draws):
        state, drawn = curriculum.draw(state, tasks, 1, KEY)
        seen += [task.difficulty for task in drawn]
    assert seen == sorted(seen, reverse=hardest_first) and set(seen) == {0, 1, 2, 3}
    assert curriculum.draw(0, tasks, draws, KEY)[1][-1].difficulty == seen[-1]
    assert curriculum.draw(state, tasks, 1, KEY)[1][0].difficulty == seen[-1]


LADDER = Together((replace(WORLD, needed=(0,), name="low"), replace(WORLD, name="high")))


def test_each_task_is_played_where_it_belongs() -> None:
    tasks = LADDER.tasks("train")
    assert [task.env for task in tasks] == ["low"] * 8 + ["high"] * 8
    assert LADDER.words() == WORLD.words()
    for task, half in zip((tasks[0], tasks[8]), (End.SOLVED, End.FAILED), strict=True):
        first = asyncio.run(LADDER.reset(task, 0))
        place = first.state.state
        right = LADDER.expert(first.state)
        assert asyncio.run(LADDER.step(first.state, right)).end is End.SOLVED
        rights = [WORLD.rights(fork, place)[0] for fork in (0, 1)]
        half_right = WORLD.response([rights[0], (rights[1] + 1) % 4])
        assert asyncio.run(LADDER.step(first.state, half_right)).end is half


def test_a_world_without_fork_says_so() -> None:
    class Unforked:
        name, words, expert, beginner = "rigid", WORLD.words, WORLD.expert, WORLD.beginner
        tasks, reset, step = WORLD.tasks, WORLD.reset, WORLD.step

    both = Together((WORLD, Unforked()))
    state = asyncio.run(both.reset(WORLD.tasks("train")[0], 0)).state
    assert asyncio.run(both.fork(state)) == state
    with pytest.raises(CannotFork, match="rigid has no fork"):
        asyncio.run(both.fork(replace(state, world="rigid")))


def test_worlds_of_one_name_and_tasks_of_none() -> None:
    with pytest.raises(ValueError, match="different names"):
        Together((WORLD, WORLD))
    with pytest.raises(ValueError, match="here are low, high"):
        asyncio.run(LADDER.reset(Task("t", env="none"), 0))
