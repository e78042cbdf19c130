"""ludus.envs.adapters.appworld: its messages everywhere; the real server where LUDUS_APPWORLD is the interpreter of an
environment in which `pip install appworld` and `appworld install` were done (its pins cannot live beside ours)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ludus.envs.adapters.appworld import LONGEST, AppWorld, Server, program
from ludus.envs.guard import EnvFault, Guarded, checked
from ludus.envs.processes import Pool
from ludus.envs.world import Split
from ludus.types import End, Explained, Step

PYTHON = os.environ.get("LUDUS_APPWORLD", "")
real = pytest.mark.skipif(not PYTHON, reason="LUDUS_APPWORLD names no interpreter with appworld")


def sets(root: Path, **files: str) -> str:
    folder = root / "data" / "datasets"
    folder.mkdir(parents=True)
    for name, lines in files.items():
        (folder / f"{name}.txt").write_text(lines)
    return str(root)


def test_a_program_is_what_stands_in_the_fences():
    said = "First\n```python\nx = 1\n```\nand then\n```\nprint(x)\n```"
    assert program(said) == "x = 1\n\nprint(x)\n"
    assert program("print(1)") == "print(1)" and program("```py\nprint(1)") == "print(1)"
    assert program("x = '\ud800\0'") == "x = '?'"
    assert len(program("x" * 100_000)) == LONGEST


def test_tasks_are_those_of_the_data_sets(tmp_path: Path):
    root = sets(tmp_path, train="a_1\na_2:hard\n", test_normal="b_1\n", dev="c_1\n")
    env = AppWorld("python", root)
    assert [task.id for task in env.tasks()] == ["appworld-a_1", "appworld-a_2"]
    assert [task.id for task in env.tasks("test")] == ["appworld-b_1"]
    assert [task.id for task in replace(env, test="dev").tasks("test")] == ["appworld-c_1"]
    with pytest.raises(Explained, match=r"no data set 'nothing' .*; there are dev, test_normal"):
        replace(env, test="nothing").tasks()
    with pytest.raises(ValueError, match="take tasks from"):
        asyncio.run(env.reset(replace(env.tasks()[0], env="another"), 0))


def test_what_is_missing_says_what_to_type(tmp_path: Path):
    with pytest.raises(Explained, match="appworld/bin/appworld download data --root appworld"):
        AppWorld("python", str(tmp_path)).tasks()
    root = sets(tmp_path, train="a_1", test_normal="b_1")

    def begun(python: str) -> AppWorld:
        env = AppWorld(python, root)
        asyncio.run(env.reset(env.tasks()[0], 0))
        return env

    with pytest.raises(Explained, match=r"(?s)cannot be started.*pip install appworld"):
        begun(str(tmp_path / "no-python"))
    with pytest.raises(
        Explained, match=r"(?s)did not start:.*No module named .*pip install appworld"
    ):
        begun(sys.executable)
    with pytest.raises(ValueError, match="at least one process"):
        Pool(0)


def test_a_server_that_never_answers_is_ended(tmp_path: Path):
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    env = AppWorld(str(slow), sets(tmp_path, train="a_1", test_normal="b_1"), starts=0.3)
    with pytest.raises(TimeoutError):
        asyncio.run(env.reset(env.tasks()[0], 0))
    assert env.pool._live == 0
    env.pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(env.reset(env.tasks()[0], 0))


# It answers that it is there, and to nothing else.
HANGS = r"""
import socket, time
door = socket.socket(socket.AF_UNIX)
door.bind("socket")
door.listen()
while True:
    caller, _ = door.accept()
    if not caller.recv(9999).startswith(b"GET"):
        time.sleep(60)
    caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    caller.close()
"""


@pytest.fixture
def hangs(tmp_path: Path) -> str:
    file = tmp_path / "python"
    file.write_text(f"#!{sys.executable}{HANGS}")
    file.chmod(0o755)
    return str(file)


def test_a_server_whose_call_was_given_up_is_not_used_again(hangs: str, tmp_path: Path):
    pool: Pool[Server] = Pool(1)

    async def given_up() -> Server:
        server = await pool.take(partial(Server, hangs, tmp_path, 20))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await server.call("execute", 90, code="while True: pass")
        pool.give(server)
        return server

    server = asyncio.run(given_up())
    assert server.broken and server.process.poll() is not None and pool.restarts == 1
    assert not server.folder.exists()
    pool.close()


def test_a_server_ends_with_its_python(hangs: str, tmp_path: Path):
    source = (
        "import sys, pathlib\nfrom ludus.envs.adapters.appworld import Server\n"
        "server = Server(sys.argv[1], pathlib.Path(sys.argv[2]), 20)\nprint(server.process.pid, server.folder)"
    )
    command = [sys.executable, "-c", source, hangs, str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    number, folder = said.split()
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(number), 0)


# ------------------------------------------------------------------------------------ the real server


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppWorld]:
    """Two little tasks in the package's format, made by the package itself."""
    root = tmp_path_factory.mktemp("appworld")
    made = Path(__file__).with_name("small_appworld.py")
    subprocess.run([PYTHON, str(made), str(root)], check=True, stdout=subprocess.DEVNULL)
    env = AppWorld(PYTHON, str(root), seconds=5, starts=300, pool=Pool(2))
    yield env
    env.pool.close()


async def acted(env: AppWorld, step: Step, *actions: str) -> Step:
    for action in actions:
        step = checked(await env.step(step.state, action), env.name)
    return step


def begun(
    env: AppWorld, do: Callable[[Step], Awaitable[None]], index: int = 0, split: Split = "train"
) -> None:
    async def walk() -> None:
        step = await env.reset(env.tasks(split)[index], 0)
        try:
            await do(step)
        finally:
            await env.close(step.state)

    asyncio.run(walk())


@real
def test_a_task_is_read_tried_and_done(env: AppWorld):
    async def do(step: Step) -> None:
        assert "Ada Hill" in str(step.observation) and "2023-05-18" in str(step.observation)
        assert str(step.observation).endswith("Task: What is two plus three?")
        step = await acted(
            env, step, "Look.\n```python\nx = 2 + 3\nprint(apis.supervisor.show_profile())\n```"
        )
        assert '"first_name": "Ada"' in str(step.observation) and step.info["valid"]
        step = await acted(env, step, "print(x)")
        assert step.observation == "5\n" and step.end is None
        step = await acted(env, step, "1 / 0")
        assert "ZeroDivisionError" in str(step.observation) and not step.info["valid"]
        step = await acted(env, step, "apis.supervisor.complete_task(answer=x)")
        assert step.end is End.SOLVED and step.reward == 1
        assert (step.info["passed"], step.info["failed"]) == (2, 0)
        with pytest.raises(ValueError, match="call reset"):
            await acted(env, step, "print(x)")

    begun(env, do)


@real
def test_a_wrong_answer_fails_and_may_be_paid_by_its_share(env: AppWorld):
    for pays, reward in (("success", 0.0), ("share", 0.5)):
        paid = replace(env, pays=pays)

        async def do(step: Step, paid: AppWorld = paid, reward: float = reward) -> None:
            step = await acted(paid, step, "apis.supervisor.complete_task(answer=7)")
            assert step.end is End.FAILED and step.reward == reward

        begun(paid, do, split="test")


@real
def test_what_the_guard_refuses_and_what_makes_no_sense_is_answered(env: AppWorld):
    async def do(step: Step) -> None:
        for said in (
            "",
            "import os; os.system('id')",
            "def",
            "\ud800\0",
            "((((" * 5000,
            "while True: pass",
        ):
            step = await acted(env, step, said)
            assert (
                step.reward == 0 and step.end is None and len(str(step.observation)) < LONGEST + 100
            )
        step = await acted(env, step, "print('x' * 100_000)")
        assert str(step.observation).endswith("(80001 more characters)")
        assert (await acted(env, step, "print(1)")).observation == "1\n"

    begun(env, do)


@real
def test_sessions_and_forks_do_not_see_each_other(env: AppWorld):
    async def do(step: Step) -> None:
        step = await acted(env, step, "x = 1", "print(x)")
        child = await env.fork(step.state)
        try:
            assert child == step.state
            step = await acted(env, step, "x = 2", "print(x)")
            assert step.observation == "2\n"
            assert (await acted(env, Step(child, ""), "print(x)")).observation == "1\n"
        finally:
            await env.close(child)

    begun(env, do)
    begun(env, do, split="test")


@real
def test_a_server_that_dies_is_a_fault_and_is_replaced(env: AppWorld):
    async def do(step: Step) -> None:
        server, _ = step.state.held.thing
        server.process.kill()
        with pytest.raises(EnvFault, match="was lost during execute") as fault:
            await Guarded(env).step(step.state, "print(1)")
        assert fault.value.end is End.ENV_CRASHED

    before = env.pool.restarts
    begun(env, do)

    async def again(step: Step) -> None:
        assert (await acted(env, step, "print(3)")).observation == "3\n"

    begun(env, again)
    assert env.pool.restarts == before + 1
