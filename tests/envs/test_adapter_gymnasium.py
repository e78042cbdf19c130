"""ludus.envs.adapters.gymnasium on the package's own environments, and on one that misbehaves."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium")

import gymnasium
from tests.helpers import engine

from ludus.envs.adapters.gymnasium import Gymnasium, told
from ludus.envs.guard import EnvFault, Guarded
from ludus.rollouts.agent_loop import AgentLoop
from ludus.types import CannotFork, End, Key, Request, Sampling

MOVES = ("left", "down", "right", "up")
TO_GOAL = ("down", "down", "right", "right", "down", "right")


def lake(slippery: bool = False, limit: int = 100) -> Gymnasium:
    return Gymnasium(
        lambda: gymnasium.make("FrozenLake-v1", is_slippery=slippery, max_episode_steps=limit),
        actions=MOVES,
        look=lambda cell, info: f"You stand on cell {cell}.",
        name="lake",
    )


async def walk(env: Gymnasium, actions: tuple[str, ...], index: int = 0):
    steps = [await env.reset(env.tasks()[index], 0)]
    for action in actions:
        steps.append(await env.step(steps[-1].state, action))
    return steps


def test_actions_by_name_or_number_lead_to_the_goal() -> None:
    *before, last = asyncio.run(walk(lake(), TO_GOAL))
    assert before[0].observation == "You stand on cell 0." and all(s.end is None for s in before)
    assert last.end is End.SOLVED and last.reward == 1 and last.observation.endswith("15.")  # type: ignore[union-attr]
    numbers = tuple(f"I think. Action: {MOVES.index(name)}." for name in TO_GOAL)
    assert asyncio.run(walk(lake(), numbers))[-1].end is End.SOLVED
    with pytest.raises(ValueError, match="call reset"):
        asyncio.run(lake().step(last.state, "left"))


def test_a_hole_fails_and_the_packages_limit_is_out_of_turns() -> None:
    assert asyncio.run(walk(lake(), ("right", "down")))[-1].end is End.FAILED
    assert asyncio.run(walk(lake(limit=3), ("left",) * 3))[-1].end is End.OUT_OF_TURNS


@pytest.mark.parametrize("said", ["", "4", "-1", "fly", "٣", "left right", "9" * 5000])
def test_what_is_no_action_moves_nothing(said: str) -> None:
    step = asyncio.run(walk(lake(), (said,)))[-1]
    assert step.info == {"valid": False} and step.reward == 0 and step.end is None
    assert step.observation == "No such action. Actions: left, down, right, up."


def test_one_task_is_one_world_and_another_task_another() -> None:
    """On ice: where one slides to is drawn."""
    env = lake(slippery=True)
    trails = [
        [s.observation for s in asyncio.run(walk(env, ("left",) * 3, i))] for i in (0, 0, 1, 2, 3)
    ]
    assert trails[0] == trails[1] and any(trail != trails[0] for trail in trails[2:])
    assert env.tasks("train")[0].extras != env.tasks("test")[0].extras


def test_a_fork_goes_its_own_way_and_a_left_state_says_how_to_come_back() -> None:
    async def branch():
        env = lake()
        state = (await walk(env, TO_GOAL[:5]))[-1].state
        other = await env.fork(state)
        hole = await env.step(state, "up")
        with pytest.raises(ValueError, match=r"env\.fork"):
            await env.step(state, "up")
        again = await env.fork(state)  # replayed: what it held has gone on
        return hole, await env.step(other, "right"), await env.step(again, "right")

    hole, solved, again = asyncio.run(branch())
    assert hole.end is None and solved.end is End.SOLVED and again.end is End.SOLVED


class Odd(gymnasium.Env):
    """Text in, text out; `mode` says what it does wrong."""

    action_space = gymnasium.spaces.Text(20, charset="abc ")
    observation_space = gymnasium.spaces.Text(100)
    made = 0

    def __init__(self, mode: str = "") -> None:
        self.mode = mode
        Odd.made += 1
        self.number = Odd.made

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot pickle a window")

    def reset(self, *, seed: int | None = None, options: Any = None):
        return f"Say abc. {self.number if self.mode == 'differs' else ''}", {}

    def step(self, action: str) -> Any:
        if self.mode == "raises":
            raise OSError("the display is gone")
        if self.mode == "spins":
            while True:
                pass
        if self.mode == "three":
            return "x", 1.0, True
        reward = float("nan") if self.mode == "nan" else float(action == "abc")
        return (
            ({1, 2} if self.mode == "set" else "heard " + action),
            reward,
            action == "abc",
            False,
            {},
        )


def test_text_actions_and_a_fork_by_replay() -> None:
    async def play():
        env = Gymnasium(Odd)
        first = await env.reset(env.tasks()[0], 0)
        refused = await env.step(first.state, "xyz")
        heard = await env.step(refused.state, "a b")
        other = await env.fork(heard.state)
        assert other.held.thing is not heard.state.held.thing and other == heard.state
        return refused, await env.step(other, "Action: abc")

    refused, last = asyncio.run(play())
    assert not refused.info["valid"] and last.end is End.SOLVED and last.observation == "heard abc"


class Counter(gymnasium.utils.EzPickle, gymnasium.Env):
    """Counts to 3; a deep copy of it calls the constructor again and counts from 0."""

    action_space = gymnasium.spaces.Discrete(2, start=-1)
    observation_space = gymnasium.spaces.Discrete(4)

    def __init__(self) -> None:
        gymnasium.utils.EzPickle.__init__(self)
        self.count = 0

    def reset(self, *, seed: int | None = None, options: Any = None):
        self.count = 0
        return self.count, {}

    def step(self, action: Any) -> Any:
        self.count += int(action) + 1
        return self.count, float(self.count == 3), self.count == 3, False, {}


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_constructed_anew_on_being_copied_is_replayed(wrapped: bool) -> None:
    def make() -> gymnasium.Env:
        return gymnasium.wrappers.TimeLimit(Counter(), 50) if wrapped else Counter()

    async def branch():
        env = Gymnasium(make)
        state = (await walk(env, ("0", "0")))[-1].state
        return await env.step(await env.fork(state), "0"), await env.step(state, "0")

    forked, original = asyncio.run(branch())
    assert forked.observation == original.observation == "3" and forked.end is End.SOLVED


def test_actions_that_begin_below_zero_are_read_and_garbage_is_none_of_them() -> None:
    steps = asyncio.run(walk(Gymnasium(Counter), ("fly", "--1", "-2", "1", "٠", "-1", "0")))
    assert [step.info.get("valid") for step in steps[1:]] == [*[False] * 5, True, True]
    assert steps[-1].observation == "1"


def test_what_can_be_neither_copied_nor_replayed_says_so() -> None:
    async def play():
        env = Gymnasium(lambda: Odd("differs"))
        await env.fork((await env.reset(env.tasks()[0], 0)).state)

    with pytest.raises(CannotFork, match="neither copied nor replayed"):
        asyncio.run(play())


@pytest.mark.parametrize(
    ("mode", "end"),
    [
        ("raises", End.ENV_CRASHED),
        ("three", End.ENV_CRASHED),
        ("nan", End.ENV_CRASHED),
        ("set", End.ENV_CRASHED),
        ("spins", End.ENV_TIMED_OUT),
    ],
)
def test_a_faulty_environment_ends_its_own_attempt(mode: str, end: End) -> None:
    env = Guarded(Gymnasium(lambda: Odd(mode)), deadline=0.5)

    async def play():
        await env.step((await env.reset(env.tasks()[0], 0)).state, "a")

    with pytest.raises(EnvFault) as fault:
        asyncio.run(play())
    assert fault.value.end is end


def test_other_spaces_and_wrong_names_are_refused_with_the_way_out() -> None:
    box = Gymnasium(lambda: gymnasium.make("MountainCarContinuous-v0"))
    with pytest.raises(ValueError, match=r"wanted Discrete or Text.*ActionWrapper"):
        asyncio.run(box.reset(box.tasks()[0], 0))
    few = Gymnasium(lambda: gymnasium.make("CliffWalking-v1"), actions=("up",))
    with pytest.raises(ValueError, match="name them all"):
        asyncio.run(few.reset(few.tasks()[0], 0))


def test_observations_in_words() -> None:
    assert told({"here": np.array([1, 2]), "day": np.int64(3)}, {}) == "here: [1 2]\nday: 3"
    with pytest.raises(TypeError, match="give look="):
        told(object(), {})


def test_the_agent_loop_plays_it() -> None:
    env = lake(limit=3)
    groups = engine().collect(
        AgentLoop(Sampling(max_tokens=4)), [Request(env.tasks()[0], 2, 2)], env, Key(0)
    )
    assert [r.end for r in groups[0].rollouts] == [End.OUT_OF_TURNS] * 2
