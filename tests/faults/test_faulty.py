"""A world of which calls fail and hang: seeded, an honest end under the guard, and nothing that is learnt from."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from tests.serving import Counting, running

from ludus.benches import faults, flaky
from ludus.envs.faulty import Faulty
from ludus.envs.guard import EnvFault, Guarded
from ludus.envs.service.remote import Remote
from ludus.envs.service.sessions import Limits
from ludus.envs.small.grid import grid
from ludus.models import tiny
from ludus.types import CannotFork, End, Group, Rollout, Step, Task

GRID = grid()
TURNS = 5


async def outcomes(env: Faulty, sessions: list[int], deadline: float = 0.5) -> dict[int, str]:
    """What ended each session of five turns, opened in this order; each has a world seed of its own."""
    guarded, task = Guarded(env, deadline), GRID.tasks()[0]

    async def play(seed: int) -> str:
        turns = 0
        try:
            step = await guarded.reset(task, seed)
            while turns < TURNS:
                step = await guarded.step(step.state, "stay")
                turns += 1
        except EnvFault as fault:
            return f"{fault.end} in turn {turns}"
        return "fine"

    told = await asyncio.gather(*map(play, sessions))
    return dict(zip(sessions, told, strict=True))


def test_faults_are_seeded_whatever_the_order() -> None:
    seeds = list(range(60))
    first = asyncio.run(outcomes(Faulty(GRID, 0.1, 0.05, seed=1), seeds))
    again = asyncio.run(outcomes(Faulty(GRID, 0.1, 0.05, seed=1), seeds[::-1]))
    other = asyncio.run(outcomes(Faulty(GRID, 0.1, 0.05, seed=2), seeds))
    assert first == again != other
    assert {told.partition(" in ")[0] for told in first.values()} == {
        *("fine", str(End.ENV_CRASHED), str(End.ENV_TIMED_OUT))
    }


def test_the_answers_of_a_group_have_faults_of_their_own() -> None:
    """They share task and seed; were their faults shared too, groups would be lost whole."""

    async def resets() -> Counter[str]:
        guarded, task = Guarded(Faulty(GRID, 0.3, 0.2), 1.0), GRID.tasks()[0]
        made = await asyncio.gather(
            *(guarded.reset(task, 7) for _ in range(400)), return_exceptions=True
        )
        return Counter(str(one.end) if isinstance(one, EnvFault) else "fine" for one in made)

    found = asyncio.run(resets())
    # four standard deviations of a binomial with n = 400
    assert abs(found["fine"] - 200) < 40
    assert abs(found[str(End.ENV_CRASHED)] - 120) < 37
    assert abs(found[str(End.ENV_TIMED_OUT)] - 80) < 32


def test_in_good_weather_it_is_the_world_itself() -> None:
    async def play(env: Any) -> list[Any]:
        step = await env.reset(env.tasks()[3], 5)
        told = [(step.observation, step.reward, step.end)]
        state = await env.fork(step.state)
        for action in ("right", "down", "nonsense"):
            step = await env.step(state, action)
            told.append((step.observation, step.reward, step.end))
            state = step.state
        return told

    calm = Faulty(GRID, 0.0, 0.0)
    assert calm.name == GRID.name and calm.tasks("test") == GRID.tasks("test")
    assert asyncio.run(play(calm)) == asyncio.run(play(GRID))


def test_what_cannot_be_copied_says_so_and_what_is_open_is_closed() -> None:
    class Stubborn(Counting):
        fork = None  # type: ignore[assignment]

    world = Stubborn()
    calm = Faulty(world, 0.0, 0.0)

    async def play() -> None:
        step = await calm.reset(world.tasks()[0], 0)
        with pytest.raises(CannotFork):
            await calm.fork(step.state)
        await calm.close(step.state)

    asyncio.run(play())
    assert len(world.closed) == 1
    with pytest.raises(ValueError, match="sum to 1 at most"):
        Faulty(GRID, 0.9, 0.2)


# ---------------------------------------------------------------------------------------------- a run


def test_a_run_counts_what_it_loses_and_learns_nothing_from_it() -> None:
    size = tiny.Size(32, 1, 2, 1, 16, 64)
    base = replace(faults.BASE, steps=2, games=2, warmup=1, size=size)
    env = Faulty(flaky.world, 0.2, 0.1, seed=3)
    made = replace(faults.recipe(env, 2, 2, base), tasks=6, answers=4)
    told = faults.learnt(made, 0, deadline=0.2)
    tally = told.tally
    assert told.steps == 2 and tally.rollouts == 2 * 6 * 4
    assert tally.adds_up and tally.causes["failed"] > 0 and tally.causes["hung"] > 0
    assert set(tally.causes) == {"failed", "hung"}
    assert tally.ends[str(End.ENV_CRASHED)] == tally.causes["failed"]
    assert tally.ends[str(End.ENV_TIMED_OUT)] == tally.causes["hung"]
    assert tally.whole + tally.thinned + tally.dropped == 2 * 6
    assert tally.scored_but_lost == 0


def test_a_lost_rollout_with_a_reward_would_be_found() -> None:
    task = Task("t")
    good = Rollout(task, (), (), 1.0, End.SOLVED)
    lost = Rollout(task, (), (), 1.0, End.ENV_CRASHED, error="this call was drawn to fail")
    assert faults.wronged(Group("t", (good, good, lost))) == 1
    assert faults.wronged(Group("t", (good, good, replace(lost, reward=0.0)))) == 0
    tally = faults.Tally()
    tally.add_group(Group("t", (good, lost)))
    assert not tally.adds_up  # the run told of no loss


# ---------------------------------------------------------------------------------------------- a server that dies


def test_a_new_session_waits_for_a_server_that_starts_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    up, enough = threading.Event(), threading.Event()

    def later() -> None:
        time.sleep(0.6)
        with running(Counting(), port=port):
            up.set()
            enough.wait(20)

    with running(Counting(), port=port) as (url, _):
        remote = Remote(url)
        guarded, tasks = Guarded(remote, 30), remote.tasks()
        old = asyncio.run(guarded.reset(tasks[0], 0))
    comes = threading.Thread(target=later)
    comes.start()

    async def play() -> tuple[EnvFault, Step]:
        new = asyncio.create_task(guarded.reset(tasks[0], 1))
        with pytest.raises(EnvFault) as caught:
            await guarded.step(old.state, "on")
        await guarded.close(old.state)
        return caught.value, await new

    try:
        fault, new = asyncio.run(play())
        assert up.is_set() and new.observation
        assert fault.end is End.ENV_CRASHED and "there is no session" in str(fault)
        assert faults.cause(Rollout(tasks[0], (), (), 0.0, fault.end, error=str(fault))) == (
            "server killed"
        )
    finally:
        enough.set()
        comes.join(20)
    # nobody is there any more: closing is still no fault
    asyncio.run(Guarded(Remote(url, retries=0), 5).close(new.state))


def test_a_call_that_hangs_ends_at_the_servers_deadline() -> None:
    with running(Faulty(Counting(), 0.0, 1.0), limits=Limits(deadline=0.2)) as (url, made):
        remote = Remote(url)
        with pytest.raises(EnvFault) as caught:
            asyncio.run(Guarded(remote, 30).reset(remote.tasks()[0], 0))
        assert caught.value.end is End.ENV_TIMED_OUT
        assert not made.state.sessions.open
