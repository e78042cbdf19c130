"""Worlds behind a server are the worlds themselves: same games, same errors, and nothing lost or done twice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.serving import PNG, Counting, running

from ludus.envs.conformance import examine
from ludus.envs.guard import EnvFault, Guarded
from ludus.envs.service.agentgym import PLAIN, SEARCHQA, WEBARENA, AgentGym
from ludus.envs.service.http import ServerFault
from ludus.envs.service.remote import Remote
from ludus.envs.service.sessions import Limits
from ludus.envs.service.wire import decode, dumps, encode, task_in, task_out
from ludus.envs.small.grid import grid
from ludus.envs.small.shapes import Shapes
from ludus.envs.small.shop import KINDS, Shop
from ludus.envs.world import World
from ludus.train.recipe import describe
from ludus.types import CannotFork, End, Env, Explained, Image, Step, Task


@pytest.fixture
def served() -> Iterator[tuple[Remote, Counting, Any]]:
    world = Counting()
    with running(world, limits=Limits(deadline=1.0)) as (url, made):
        yield Remote(url), world, made.state.sessions


def outline(step: Step) -> tuple[Any, ...]:
    return step.observation, step.reward, step.end, dict(step.info)


# ---------------------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, 10**30, 0.1, "text", "\ud800\0", [], {}, (), b"\0\xff", Image(PNG)),
        *(float("inf"), (1, ("a", [2, (3,)])), {"a": (1,), "b": {"c": None}}, frozenset({1, 2})),
        *({1: "a", (2, 3): "b"}, {"$tuple": [1]}, {"$float": "x", "b": 1}, {"$": {}}),
    ],
    ids=repr,
)
def test_values_come_back_as_they_went(value):
    import json

    found = decode(json.loads(dumps(encode(value))))
    assert found == value and type(found) is type(value)


def test_what_json_cannot_say_comes_back_as_text_or_plain():
    assert decode(encode(np.float32(0.5))) == 0.5
    assert encode(float("nan")) == {"$float": "nan"}
    assert decode(encode(Counting)) == repr(Counting)
    for task in Shop(KINDS).tasks("test")[:3]:
        assert task_in(task_out(task)) == task


# ---------------------------------------------------------------------------------------------- the same games


WORLDS: list[World] = [grid(), Shop(KINDS, train=20, test=10), Shapes(train=20, test=10)]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_a_remote_world_gives_the_same_games(world: World):
    async def games(env: Env, mirrored: bool) -> list[list[tuple[Any, ...]]]:
        """Thirty at once; the player looks at the states of the world itself, which the remote one mirrors."""

        async def game(index: int) -> list[tuple[Any, ...]]:
            rng, turns = np.random.default_rng(index), 0
            split = "train" if index % 2 else "test"
            task = env.tasks(split)[index % 10]
            step, own = await env.reset(task, index), await world.reset(task, index)
            told = [outline(step)]
            while step.end is None and turns < 12:
                good = rng.random() < 0.7
                action = world.expert(own.state) if good else world.beginner(own.state, rng)
                step = await env.step(step.state, action)
                own = await world.step(own.state, action) if mirrored else step
                turns += 1
                told.append(outline(step))
            if mirrored:
                await env.close(step.state)  # type: ignore[attr-defined]
            return told

        return await asyncio.gather(*map(game, range(30)))

    here = asyncio.run(games(world, mirrored=False))
    with running(world) as (url, made):
        remote = Remote(url)
        assert isinstance(remote, Env) and remote.name == world.name
        for split in ("train", "test"):
            assert list(remote.tasks(split)) == list(world.tasks(split))
        assert asyncio.run(games(remote, mirrored=True)) == here
        assert not made.state.sessions.open
    assert any(game[-1][2] is End.SOLVED for game in here)


def test_a_remote_world_passes_the_conformance_suite(served):
    remote, world, _ = served
    here = {finding.check: finding for finding in asyncio.run(examine(world))}
    there = {finding.check: finding for finding in asyncio.run(examine(remote))}
    differ = {check for check in here if here[check].verdict != there[check].verdict}
    assert differ == {"an episode that is over"}  # the server refuses what this world lets pass
    assert "call reset" in there["an episode that is over"].told


# ---------------------------------------------------------------------------------------------- calls


def test_steps_that_wait_together_travel_together(served, monkeypatch):
    remote, _, _ = served
    sizes: list[int] = []
    send = Remote._send

    async def counted(self: Remote, batch: Any) -> None:
        sizes.append(len(batch))
        await send(self, batch)

    monkeypatch.setattr(Remote, "_send", counted)

    async def many() -> None:
        task = remote.tasks()[0]
        steps = await asyncio.gather(*(remote.reset(task, n) for n in range(64)))
        steps = await asyncio.gather(*(remote.step(step.state, "on") for step in steps))
        await asyncio.gather(*(remote.close(step.state) for step in steps))

    asyncio.run(many())
    asyncio.run(many())  # in another event loop, with a connection of its own
    assert sizes == [64] * 6


def test_branches_are_forked_and_never_mixed_up(served):
    remote, _, _ = served

    async def play() -> None:
        start = await remote.reset(remote.tasks()[0], 0)
        one = await remote.step(start.state, "left")
        with pytest.raises(ValueError, match="fork"):
            await remote.step(start.state, "right")
        with pytest.raises(ValueError, match="past"):
            await remote.fork(start.state)
        branch = await remote.fork(one.state)
        two = await remote.step(one.state, "on")
        other = await remote.step(branch, "back")
        assert two.info["said"] == "on" and other.info["said"] == "back"
        with pytest.raises(CannotFork, match="not in the middle"):
            await remote.fork(two.state)
        both = await asyncio.gather(
            remote.step(two.state, "a"), remote.step(two.state, "b"), return_exceptions=True
        )
        assert [type(one) for one in both] == [Step, ValueError]

    asyncio.run(play())


def test_faults_keep_their_kind(served):
    remote, _, _ = served
    guarded = Guarded(remote)

    async def fault(action: str) -> EnvFault:
        step = await guarded.reset(remote.tasks()[0], 0)
        with pytest.raises(EnvFault) as caught:
            await guarded.step(step.state, action)
        await guarded.close(step.state)  # gone already, which is no mistake
        return caught.value

    assert asyncio.run(fault("hang")).end is End.ENV_TIMED_OUT
    crashed = asyncio.run(fault("crash"))
    assert crashed.end is End.ENV_CRASHED and "the world fell over" in str(crashed)


def test_the_task_of_another_world_and_an_episode_that_is_over(served):
    remote, _, _ = served

    async def play() -> None:
        with pytest.raises(ValueError, match="take tasks from"):
            await remote.reset(grid().tasks()[0], 0)
        changed = replace(remote.tasks()[0], extras={"at": (5, "x")})
        with pytest.raises(ValueError, match="take tasks from"):
            await remote.reset(changed, 0)
        step = await remote.reset(remote.tasks()[0], 0)
        while step.end is None:
            step = await remote.step(step.state, "on")
        with pytest.raises(ValueError, match="call reset"):
            await remote.step(step.state, "on")

    asyncio.run(play())


def test_two_forks_of_one_state_at_once(served):
    remote, _, _ = served

    async def play() -> None:
        step = await remote.reset(remote.tasks()[0], 0)
        one, two = await asyncio.gather(remote.fork(step.state), remote.fork(step.state))
        assert one.session != two.session and one.turn == two.turn == 0

    asyncio.run(play())


def test_a_server_that_has_other_tasks_now_is_not_played_on():
    with running(Counting()) as (url, _):
        remote = Remote(url)
        task = remote.tasks()[0]
    with running(Other(), port=int(url.rpartition(":")[2])):

        async def play() -> None:
            with pytest.raises(ValueError, match=r"'other-0', not 'train-0'.*read them again"):
                await remote.reset(task, 0)

        asyncio.run(play())


class Other(Counting):
    def tasks(self, split: str = "train") -> list[Task]:
        return [replace(task, id=f"other-{n}") for n, task in enumerate(super().tasks(split))]


def test_a_world_that_was_out_of_turns_is_so_through_agentgyms_routes():
    class Patient(Counting):
        async def step(self, state: Any, action: str) -> Step:
            return replace(await super().step(state, action), end=End.OUT_OF_TURNS)

    async def play(url: str) -> None:
        gym = AgentGym(url, {"train": [0]})
        step = await gym.step((await gym.reset(gym.tasks()[0], 0)).state, "on")
        assert step.end is End.OUT_OF_TURNS

    with running(Patient()) as (url, _):
        asyncio.run(play(url))


def test_a_caller_who_gives_up_leaves_nothing_open(served):
    remote, world, sessions = served

    async def play() -> None:
        step = await remote.reset(remote.tasks()[0], 0)
        guarded = Guarded(remote, deadline=0.1)
        with pytest.raises(EnvFault):
            await guarded.step(step.state, "wait")
        await remote.close(step.state)
        fresh = await remote.reset(remote.tasks()[0], 1)
        assert (await remote.step(fresh.state, "on")).reward == 0.25
        await remote.close(fresh.state)

    asyncio.run(play())
    until = time.monotonic() + 10
    while len(world.closed) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(world.closed) == 2 and not sessions.open


# ---------------------------------------------------------------------------------------------- bad weather


class Cutting:
    """A proxy that breaks connections off: after so many bytes of an answer, for its first few connections."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self.target, self.cuts = port, cuts
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            left = self.cuts.pop(0) if self.cuts else 1 << 60
            threading.Thread(target=self._pipe, args=(client, server, 1 << 60), daemon=True).start()
            threading.Thread(target=self._pipe, args=(server, client, left), daemon=True).start()

    @staticmethod
    def _pipe(source: socket.socket, sink: socket.socket, left: int) -> None:
        with contextlib.suppress(OSError):
            while left > 0 and (data := source.recv(65536)):
                sink.sendall(data[:left])
                left -= len(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.socket.close()


def test_answers_that_break_off_are_asked_for_again_and_nothing_is_done_twice():
    world = Counting()
    with running(world) as (url, made):
        port = int(url.rpartition(":")[2])
        tasks = Remote(url).tasks()
        for cut in (0, 10, 150, 400, 900):
            proxy = Cutting(port, [])
            remote = Remote(f"http://127.0.0.1:{proxy.port}")
            assert remote.tasks() == tasks  # asked before the weather turns
            proxy.cuts += [cut, cut]
            world.steps = 0

            async def play(remote: Remote = remote) -> list[Any]:
                steps = await asyncio.gather(*(remote.reset(tasks[0], n) for n in range(4)))
                for _ in range(4):
                    steps = await asyncio.gather(*(remote.step(s.state, "on") for s in steps))
                await asyncio.gather(*(remote.close(step.state) for step in steps))
                return [(step.observation, step.end) for step in steps]

            told = asyncio.run(play())
            assert told == [(f"train-0 {n} 4", End.SOLVED) for n in range(4)]
            assert world.steps == 16 and not made.state.sessions.open
            proxy.close()


def test_a_server_that_restarts_loses_its_sessions_and_says_so():
    with running(Counting()) as (url, _):
        remote = Remote(url)
        step = asyncio.run(remote.reset(remote.tasks()[0], 0))
    port = int(url.rpartition(":")[2])
    with running(Counting(), port=port) as _:
        with pytest.raises(ServerFault, match="there is no session"):
            asyncio.run(remote.step(step.state, "on"))
        assert asyncio.run(remote.reset(remote.tasks()[0], 0)).observation


def test_a_full_server_is_waited_for():
    with running(Counting(), limits=Limits(sessions=1)) as (url, _):
        remote = Remote(url)

        async def play(n: int) -> None:
            step = await remote.reset(remote.tasks()[0], n)
            await asyncio.sleep(0.05)
            await remote.close(step.state)

        async def both() -> None:
            await asyncio.gather(play(0), play(1))

        asyncio.run(both())


def test_no_server_and_a_wrong_token_say_what_to_type(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(Explained, match="ludus env serve"):
        Remote(nobody, retries=0).tasks()
    with running(Counting(), token="right") as (url, _):
        with pytest.raises(Explained, match="LUDUS_ENV_TOKEN"):
            Remote(url).tasks()
        assert len(Remote(url, token="right").tasks()) == 3
        monkeypatch.setenv("LUDUS_ENV_TOKEN", "right")
        remote = Remote(url)
        assert asyncio.run(remote.reset(remote.tasks()[0], 0)).observation


def test_the_token_is_not_written_anywhere():
    for env in (Remote("http://x", token="s3cret"), AgentGym("http://x", {}, token="s3cret")):
        assert "s3cret" not in repr(env) and "s3cret" not in str(describe(env))


# ---------------------------------------------------------------------------------------------- AgentGym


@pytest.mark.parametrize(("dialect", "bare"), [(PLAIN, False), (WEBARENA, False), (SEARCHQA, True)])
def test_agentgyms_routes_play_the_same_games(dialect, bare):
    world = Counting()
    with running(world, bare_ids=bare) as (url, made):
        gym = AgentGym(url, {"train": range(3), "test": (3, 4)}, name="counting", dialect=dialect)
        assert isinstance(gym, Env) and len(gym.tasks("test")) == 2

        async def play() -> None:
            step = await gym.reset(gym.tasks("test")[1], 9)
            start = step.state
            assert step.observation == "test-1 9"
            for n in range(4):
                step = await gym.step(step.state, "I think.\nAction: on")
                assert (step.observation, step.reward) == (f"test-1 9 {n + 1}", 0.25)
            assert step.end is End.SOLVED
            with pytest.raises(ValueError, match="not at step 0"):
                await gym.step(start, "on")
            with pytest.raises(CannotFork):
                await gym.fork(start)
            await gym.close(step.state)
            await gym.close(step.state)
            with pytest.raises(ValueError, match="take tasks from"):
                await gym.reset(grid().tasks()[0], 0)

        asyncio.run(play())
        assert not made.state.sessions.open


def test_an_original_server_answers_mistakes_with_code_200():
    """The convention of the original servers, and the ones that only say `done`."""
    import json

    import uvicorn
    from fastapi import FastAPI

    from ludus.envs.service import remote as module

    made, bodies = FastAPI(), list[Any]()

    @made.post("/create")
    async def create() -> dict[str, Any]:
        return {"id": 0}

    @made.post("/reset")
    async def reset(body: dict[str, Any]) -> dict[str, Any]:
        bodies.append(body)
        return {"observation": "go", "done": False, "reward": 0}

    @made.post("/step")
    async def step(body: dict[str, Any]) -> dict[str, Any]:
        if body["action"] == "bad":
            return {"error": "KeyError: 'door'"}
        return {"observation": "you win", "reward": 100, "score": 100, "done": True}

    server = uvicorn.Server(uvicorn.Config(made, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        gym = AgentGym(url, {"train": [7]}, success=100, scale=0.01)

        async def play() -> None:
            state = (await gym.reset(gym.tasks()[0], 0)).state
            with pytest.raises(module.ServerFault, match="KeyError: 'door'"):
                await gym.step(state, "bad")
            await gym.close(state)  # it has no /close
            state = (await gym.reset(gym.tasks()[0], 0)).state
            won = await gym.step(state, "win")
            assert (won.reward, won.end) == (1.0, End.SOLVED)

        asyncio.run(play())
        assert bodies[0] == {"id": 0, "data_idx": 7, "seed": 0}, json.dumps(bodies)
    finally:
        server.should_exit = True
        thread.join(20)


def test_many_threads_with_loops_of_their_own(served):
    """Every thread brings a Remote: one is for one event loop at a time."""
    url = served[0].url

    def play(n: int) -> Any:
        async def game() -> Any:
            remote = Remote(url)
            step = await remote.reset(remote.tasks()[0], n)
            step = await remote.step(step.state, "on")
            await remote.close(step.state)
            return step.observation

        return asyncio.run(game())

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(play, range(16))) == [f"train-0 {n} 1" for n in range(16)]
