"""A real server on loopback for the time of a test, and the worlds that it serves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI

from ludus.envs.service.serve import app
from ludus.types import CannotFork, End, Env, Image, Message, Step, Task

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(32))


@contextlib.contextmanager
def running(env: Env, port: int = 0, **how: Any) -> Iterator[tuple[str, FastAPI]]:
    """The address and the application of a server in a thread, stopped and joined at the end."""
    made = app(env, **how)
    settings = uvicorn.Config(made, port=port, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.005)
    assert server.started
    try:
        bound = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{bound}", made
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@dataclass
class Clock:
    """Time that passes when a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Counting:
    """Counts to `length`, one a step, and does on the word what a bad world does by itself; closes are kept."""

    length: int = 4
    name: str = "counting"
    closed: list[Any] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)
    steps: int = 0

    def tasks(self, split: str = "train") -> list[Task]:
        ask = (Message("system", "Count."),)
        return [
            Task(f"{split}-{n}", ask, answer=(n, "x"), env=self.name, extras={"at": (n, split)})
            for n in range(3 if split == "train" else 2)
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        return Step((task.id, seed, 0), (f"{task.id} {seed}", Image(PNG)))

    async def step(self, state: Any, action: str) -> Step:
        self.steps += 1
        match action:
            case "wait":
                self.begun.set()
                await asyncio.sleep(0.3)
            case "hang":
                self.begun.set()
                await asyncio.sleep(60)
            case "crash":
                raise RuntimeError("the world fell over")
            case "lie":
                return Step(state, "nothing", float("nan"))
        task, seed, n = state
        end = End.SOLVED if n + 1 == self.length else None
        info = {"anchor": (task, n), "none": None, "odd": float("inf"), "said": action}
        return Step((task, seed, n + 1), f"{task} {seed} {n + 1}", 0.25, end, info)

    async def fork(self, state: Any) -> Any:
        if state[2] == 2:
            raise CannotFork("not in the middle")
        return state

    async def close(self, state: Any) -> None:
        self.closed.append(state)
