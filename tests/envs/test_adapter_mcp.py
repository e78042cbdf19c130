"""ludus.envs.adapters.mcp with a real server, written with the package, over stdio and over streamable HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mcp")

import uvicorn
from mcp.server.mcpserver import MCPServer
from tests.helpers import engine, tiny_model

from ludus.envs.adapters.mcp import MCP, Program, ToolError, connect, read_call
from ludus.envs.guard import EnvFault, Guarded, checked
from ludus.envs.world import Split
from ludus.rollouts.agent_loop import AgentLoop
from ludus.types import CannotFork, End, Image, Key, Message, Request, Sampling, Task

SERVER = '''
import os, time
from mcp import MCPError
from mcp.types import INVALID_PARAMS
from mcp.server.mcpserver import Image, MCPServer

server = MCPServer("till")
held = [0]

@server.tool()
def add(amount: int) -> str:
    """Put an amount into the till."""
    held[0] += amount
    return f"held {held[0]}"

@server.tool()
def fail(how: str) -> str:
    """Fail in a way."""
    if how == "die":
        os._exit(3)
    if how == "hang":
        time.sleep(60)
    raise ValueError("no such " + how)

@server.tool()
def say(text: str) -> str:
    """Say something."""
    raise MCPError(INVALID_PARAMS, "not " + text)

@server.tool()
def look() -> Image:
    """A picture of the till."""
    return Image(data=b"\\x89PNG", format="png")

server.run()
'''
TASKS: dict[Split, tuple[Task, ...]] = {
    "train": (
        Task("five", (Message("user", "Put 2 and 3 in. What is held?"),), answer="5", env="mcp"),
    ),
    "test": (),
}


def judge(task: Task, answer: str) -> float:
    return float(answer == task.answer)


@pytest.fixture
def world(tmp_path: Path) -> MCP:
    file = tmp_path / "server.py"
    file.write_text(SERVER)
    return MCP(Program(sys.executable, (str(file),)), TASKS, judge)


def call(name: str, **arguments: object) -> str:
    return "Thinking. Action: " + json.dumps({"name": name, "arguments": arguments})


def nested(levels: int) -> object:
    return [nested(levels - 1)] if levels else 1


def test_an_episode_with_a_server_of_its_own(world: MCP) -> None:
    """Calls, what is wrong with some, a fork that is led the same way, pictures, and the answer; no process stays."""

    async def play() -> None:
        opening = await world.reset(world.tasks()[0], 0)
        assert "add: Put an amount into the till." in str(opening.observation)
        assert '"amount"' in str(opening.observation)
        step = await world.step(opening.state, call("add", amount=2))
        assert step.observation == "held 2" and step.end is None
        other = await world.fork(step.state)
        for said, told in (
            (call("add", amount="much"), "Error: "),
            (call("fail", how="way"), "no such way"),
            (call("steal"), "No such tool: steal. Tools: add, fail, say, look."),
            (call("\ud800"), "No such tool: ?."),
            (call("say", text="that"), "Error: say: not that"),
            (call("say", text="\ud800"), "lone surrogate"),
            (call("say", **{"\ud800": 1}), "lone surrogate"),
            (call("say", text=nested(120)), "nested in more than 100 levels"),
            (call("say", text=nested(300)), "nested in more than 100 levels"),
            (call("say", text=nested(90)), "Error: "),
            (call("say", text=10**4000), "Error: "),
            ("\ud800", "No such action"),
            ("{" * 50_000, "No such action"),
        ):
            step = checked(await world.step(step.state, said), "mcp")
            assert told in str(step.observation) and step.end is None
        step = await world.step(step.state, call("look"))
        assert step.observation == (Image(b"\x89PNG"),)
        step = await world.step(step.state, call("add", amount=3))
        assert step.observation == "held 5"
        done = await world.step(step.state, "Action: answer 5")
        assert done.end is End.SOLVED and done.reward == 1
        assert (await world.step(other, call("add", amount=1))).observation == "held 3"
        failed = await world.reset(world.tasks()[0], 0)
        assert (await world.step(failed.state, "answer: 4")).end is End.FAILED
        for state in (opening.state, other, failed.state):
            await world.close(state)

    asyncio.run(play())
    assert not children()


def children() -> list[str]:
    """Of this process, that run a server."""
    mine = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid() and b"server.py" in (entry / "cmdline").read_bytes():
                mine.append(entry.name)
        except OSError:
            continue
    return mine


@pytest.mark.parametrize(("how", "end"), [("die", End.ENV_CRASHED), ("hang", End.ENV_TIMED_OUT)])
def test_a_server_that_dies_or_hangs_is_the_worlds_fault(world: MCP, how: str, end: End) -> None:
    async def play() -> None:
        opening = await world.reset(world.tasks()[0], 0)
        env = Guarded(world, deadline=3)
        try:
            with pytest.raises(EnvFault) as fault:
                await env.step(opening.state, call("fail", how=how))
            assert fault.value.end is end
        finally:
            await world.close(opening.state)

    asyncio.run(play())
    assert not children()


def test_a_program_that_is_no_server_is_a_fault_of_the_reset() -> None:
    async def play(program: Program) -> None:
        env = Guarded(MCP(program, TASKS, judge), deadline=10)
        with pytest.raises(EnvFault):
            await env.reset(TASKS["train"][0], 0)

    asyncio.run(play(Program("/no/such/program")))
    asyncio.run(play(Program(sys.executable, ("-c", "pass"))))


@pytest.fixture
def url() -> Iterator[str]:
    server = MCPServer("double")

    @server.tool()
    def double(number: int) -> int:
        """Twice a number."""
        return 2 * number

    config = uvicorn.Config(server.streamable_http_app(), port=0, log_level="error", ws="none")
    web = uvicorn.Server(config)
    thread = threading.Thread(target=web.run, daemon=True)
    thread.start()
    while not web.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}/mcp"
    web.should_exit = True
    thread.join(10)


def test_tools_over_http_without_an_episode(url: str) -> None:
    async def use() -> None:
        connection = await connect(url)
        (double,) = connection.tools
        assert double.name == "double" and double.parameters["required"] == ["number"]
        assert await double.call(number=21) == "42"
        with pytest.raises(ToolError):
            await double.call(number="many")
        await connection.close()
        env = MCP(url, TASKS, judge)
        opening = await env.reset(TASKS["train"][0], 0)
        with pytest.raises(CannotFork, match="one server for all"):
            await env.fork(opening.state)
        await env.close(opening.state)

    asyncio.run(use())


def test_the_agent_loop_plays_it(url: str) -> None:
    env = MCP(url, TASKS, judge)
    loop = AgentLoop(Sampling(max_tokens=4))
    local = engine(tiny_model(length=2048))
    rollouts = local.collect(loop, [Request(env.tasks()[0], 2, 2)], env, Key(0))[0].rollouts
    assert [r.end for r in rollouts] == [End.OUT_OF_TURNS] * 2, rollouts
    assert all("No such action" in turn.observation for r in rollouts for turn in r.turns)


def test_calls_are_read_strictly() -> None:
    assert read_call('{"name": "a", "arguments": {"b": 1}}') == ("a", {"b": 1})
    assert read_call('{"name": "a"}') == ("a", {})
    for said in ("", "a(1)", "[]", '{"name": 1}', '{"name": "a", "arguments": [1]}', "[" * 9_000):
        assert read_call(said) is None
