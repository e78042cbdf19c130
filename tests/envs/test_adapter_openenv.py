"""ludus.envs.adapters.openenv with a real server, made with the package."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("openenv")

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app
from websockets.asyncio.server import ServerConnection, serve

from ludus.envs.adapters.openenv import OpenEnv
from ludus.envs.guard import EnvFault, Guarded, checked
from ludus.types import CannotFork, End, Step


class Guess(Action):
    number: int


class Hint(Observation):
    text: str


class Numbers(Environment[Guess, Hint, State]):
    """A number from 0 to 9; -1 breaks it, -2 hangs."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, **rest) -> Hint:
        self.secret = random.Random(seed).randrange(10)
        return Hint(text="Guess.")

    def step(self, action: Guess, timeout_s=None, **rest) -> Hint:
        if action.number == -1:
            raise OSError("the number is gone")
        if action.number == -2:
            time.sleep(3)
        if action.number == self.secret:
            return Hint(text="Yes.", reward=1.0, done=True)
        return Hint(text="Higher." if action.number < self.secret else "Lower.", reward=0.0)

    @property
    def state(self) -> State:
        return State()


class Dice(Numbers):
    def reset(self, seed=None, episode_id=None, **rest) -> Hint:
        super().reset(None)
        return Hint(text=f"Guess {random.random()}.")


@pytest.fixture(scope="module")
def urls() -> Iterator[list[str]]:
    servers = []
    for made in (Numbers, Dice):
        app = create_fastapi_app(made, Guess, Hint, max_concurrent_envs=20)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
    while not all(server.started for server, _ in servers):
        time.sleep(0.05)
    ports = [server.servers[0].sockets[0].getsockname()[1] for server, _ in servers]
    yield [f"http://127.0.0.1:{port}" for port in ports]
    for server, thread in servers:
        server.should_exit = True
        thread.join(10)


def number(text: str) -> dict[str, object]:
    if not text.removeprefix("-").isdigit():
        raise ValueError("Write a number.")
    return {"number": int(text)}


async def search(env: OpenEnv, index: int = 0) -> list[Step]:
    """Halving by the hints."""
    low, high = 0, 9
    steps = [await env.reset(env.tasks()[index], 0)]
    while steps[-1].end is None:
        middle = (low + high) // 2
        steps.append(checked(await env.step(steps[-1].state, str(middle)), env.name))
        low, high = (
            (middle + 1, high) if "Higher" in str(steps[-1].observation) else (low, middle - 1)
        )
    await env.close(steps[0].state)
    return steps


def test_an_episode_is_played_to_its_end_and_repeats_itself(urls: list[str]) -> None:
    env = OpenEnv(urls[0], number)
    first, again = asyncio.run(search(env)), asyncio.run(search(env))
    assert first[0].observation == "text: Guess."
    assert first[-1].end is End.SOLVED and first[-1].reward == 1
    assert [s.observation for s in first] == [s.observation for s in again]
    assert len({len(asyncio.run(search(env, index))) for index in range(6)}) > 1


def test_sessions_do_not_see_one_another_and_a_fork_is_led_the_same_way(urls: list[str]) -> None:
    env = OpenEnv(urls[0], number)

    async def play() -> None:
        states = [(await env.reset(task, 0)).state for task in env.tasks()[:8]]
        forks = [await env.fork(state) for state in states]
        told = [(await env.step(state, "4")).observation for state in states]
        assert told == [(await env.step(state, "4")).observation for state in forks]
        assert len(set(told)) > 1
        for state in (*states, *forks):
            await env.close(state)

    asyncio.run(play())


def test_what_is_no_action_is_told_to_the_policy(urls: list[str]) -> None:
    async def play() -> None:
        raw = OpenEnv(urls[0], lambda text: {"number": text})
        for env in (OpenEnv(urls[0], number), raw):
            step = await env.reset(env.tasks()[0], 0)
            for said in ("four", "", "\x00"):
                step = checked(await env.step(step.state, said), env.name)
                assert "No such action" in str(step.observation) and step.info == {"valid": False}
            await env.close(step.state)

    asyncio.run(play())


@pytest.mark.parametrize(("said", "end"), [("-1", End.ENV_CRASHED), ("-2", End.ENV_TIMED_OUT)])
def test_a_server_that_fails_or_hangs_ends_the_attempt(
    urls: list[str], said: str, end: End
) -> None:
    env = OpenEnv(urls[0], number)

    async def play() -> None:
        opening = await env.reset(env.tasks()[0], 0)
        try:
            with pytest.raises(EnvFault) as fault:
                await Guarded(env, deadline=1).step(opening.state, said)
            assert fault.value.end is end
        finally:
            await env.close(opening.state)

    asyncio.run(play())


def test_what_a_server_says_that_is_no_answer_is_no_fault_of_the_policy() -> None:
    async def talk(socket: ServerConnection) -> None:
        await socket.recv()
        seen = {"observation": {"text": "Guess."}, "reward": 0, "done": False}
        await socket.send(json.dumps({"type": "observation", "data": seen}))
        await socket.recv()
        await socket.send("<html>502 Bad Gateway</html>")

    async def play() -> None:
        async with serve(talk, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            env = OpenEnv(f"http://127.0.0.1:{port}", number)
            opening = await env.reset(env.tasks()[0], 0)
            with pytest.raises(EnvFault) as fault:
                await Guarded(env).step(opening.state, "4")
            assert fault.value.end is End.ENV_CRASHED
            await env.close(opening.state)

    asyncio.run(play())


def test_no_server_is_a_fault_and_one_without_seeds_cannot_be_forked(urls: list[str]) -> None:
    nowhere = OpenEnv("http://127.0.0.1:9", number)
    with pytest.raises(EnvFault, match=r"openenv\.reset"):
        asyncio.run(Guarded(nowhere).reset(nowhere.tasks()[0], 0))

    async def play() -> None:
        env = OpenEnv(urls[1], number)
        opening = await env.reset(env.tasks()[0], 0)
        with pytest.raises(CannotFork, match="neither copied nor replayed"):
            await env.fork(opening.state)
        await env.close(opening.state)

    asyncio.run(play())
