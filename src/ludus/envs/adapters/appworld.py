"""AppWorld: tasks for a person's phone, done by writing Python against nine apps with 457 calls (arXiv:2407.18901).

    python -m venv appworld && appworld/bin/pip install appworld
    appworld/bin/appworld install && appworld/bin/appworld download data --root appworld

    env = AppWorld(python="appworld/bin/python", root="appworld")

The package wants old versions of pydantic and fastapi, so it has an environment of its own, and its server runs in a
process that listens on a socket file which nobody else can open. A server holds one world: a session has one from a
pool, one that died or hangs is replaced, and `pool.restarts` counts them. What the policy writes runs in that process
behind the package's own guard, which is no sandbox. A fork plays the history again in another server.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from ludus.envs.adapters.live import Held, Live, forked, not_copied
from ludus.envs.processes import Pool
from ludus.envs.world import Split, place_of
from ludus.types import End, Explained, Message, Step, Task

INSTRUCTION = Message(
    "system",
    "You do a task for your supervisor by writing Python, one block per turn; variables stay. Apps are called as "
    "apis.APP.CALL(...), and what you print you will see.\n"
    "print(apis.api_docs.show_app_descriptions())\n"
    "print(apis.api_docs.show_api_descriptions(app_name='spotify'))\n"
    "print(apis.api_docs.show_api_doc(app_name='spotify', api_name='login'))\n"
    "print(apis.supervisor.show_account_passwords())\n"
    "When the task is done, call apis.supervisor.complete_task(), with answer=... where it asks a question. If it "
    "cannot be done, call apis.supervisor.complete_task(status='fail').",
)

LONGEST = 20_000  # characters of a program, and of what it printed
INSTALL = (
    "python -m venv appworld && appworld/bin/pip install appworld && appworld/bin/appworld install "
    "&& appworld/bin/appworld download data --root appworld"
)


def program(message: str) -> str:
    """The fenced blocks of a message, one after the other, or else all of it."""
    blocks = re.findall(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", message, re.DOTALL)
    text = "\n".join(blocks) if blocks else message
    return text[:LONGEST].encode(errors="replace").decode().replace("\0", "")


# ---------------------------------------------------------------------------------------------- processes


class Server:
    """One process of the package's environment server (some hundred MB), and the folder with its socket and log.

    Making one takes as long as the server needs to answer, `starts` seconds at most. It ends with this Python.
    """

    def __init__(self, python: str, root: Path, starts: float) -> None:
        self.root, self.name = root, f"ludus-{uuid.uuid4().hex[:12]}"
        self.busy = self.broken = False
        self.folder = Path(tempfile.mkdtemp(prefix="appworld-"))  # readable by its owner alone
        words = ["-m", "uvicorn", "appworld.serve.environment:app", "--uds", "socket"]
        environment = {**os.environ, "APPWORLD_ROOT": str(root)}
        with (self.folder / "said").open("wb") as said:
            try:
                self.process = subprocess.Popen(
                    [python, *words, "--log-level", "warning"],
                    cwd=self.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                )
            except OSError as error:
                shutil.rmtree(self.folder, ignore_errors=True)
                raise Explained(f"{python} cannot be started ({error}); type: {INSTALL}") from error
        outputs = root / "experiments" / "outputs" / self.name
        self._end = weakref.finalize(self, _end, self.process, self.folder, outputs)
        try:
            self._wait(starts)
        except BaseException:
            self.kill()
            raise

    def _wait(self, starts: float) -> None:
        import httpx

        transport = httpx.HTTPTransport(uds=self._socket, verify=False)
        until = time.monotonic() + starts
        with httpx.Client(transport=transport, base_url="http://appworld", timeout=5.0) as client:
            while time.monotonic() < until:
                if self.process.poll() is not None:
                    raise Explained(
                        f"AppWorld's server did not start:\n{self.said()}\ntype: {INSTALL}"
                    )
                try:
                    client.get("/")
                    return
                except httpx.TransportError:
                    time.sleep(0.1)
        raise TimeoutError(f"AppWorld's server did not answer within {starts:g} s; {self.said()}")

    @property
    def _socket(self) -> str:
        return str(self.folder / "socket")

    def said(self) -> str:
        return (self.folder / "said").read_text(errors="replace")[-1500:].strip()

    @property
    def usable(self) -> bool:
        return not (self.busy or self.broken) and self.process.poll() is None

    async def call(self, route: str, seconds: float, **body: Any) -> Any:
        """The output of a POST; what is not well is raised, and the server not used again."""
        import httpx

        self.busy = True
        try:
            async with self._client(seconds) as client:
                answer = await client.post(f"/{route}", json=body)
            if not answer.is_success:
                raise RuntimeError(
                    f"AppWorld's server answered {route} with {answer.status_code}: {answer.text[:500]}\n{self.said()}"
                )
            return answer.json()["output"]
        except httpx.TransportError as error:
            self.broken = True
            raise RuntimeError(
                f"AppWorld's server was lost during {route} ({type(error).__name__}); {self.said()}"
            ) from error
        except BaseException:  # a call that was given up, too: its program still runs
            self.broken = True
            raise
        finally:
            self.busy = False

    def _client(self, seconds: float) -> Any:
        import httpx

        transport = httpx.AsyncHTTPTransport(uds=self._socket, verify=False)
        return httpx.AsyncClient(transport=transport, base_url="http://appworld", timeout=seconds)

    def kill(self) -> None:
        """End it, and remove what it wrote."""
        self._end()


def _end(process: subprocess.Popen[bytes], *folders: Path) -> None:
    process.kill()
    process.wait()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------------------------------------- the environment


@dataclass(frozen=True)
class AppWorld:
    """python  the interpreter that has the package; root: the folder that has its data

    train, test  names of the package's data sets: train, dev, test_normal, test_challenge
    pays         success: 1 when all of a task's tests pass; share: the share of them that pass (LOOP)
    seconds      for one program, after which the package ends it with an error text
    starts       seconds for a server to start
    """

    python: str
    root: str = "."
    train: str = "train"
    test: str = "test_normal"
    pays: Literal["success", "share"] = "success"
    seconds: int = 60
    starts: float = 300.0
    pool: Pool[Server] = field(default_factory=Pool)
    name: str = field(default="appworld", kw_only=True)

    @cached_property
    def _root(self) -> Path:
        return Path(self.root).expanduser().resolve()

    @cached_property
    def _ids(self) -> dict[Split, list[str]]:
        named: dict[Split, str] = {"train": self.train, "test": self.test}
        return {split: self._listed(name) for split, name in named.items()}

    def _listed(self, name: str) -> list[str]:
        """The tasks of a data set; behind a colon a line may have a tag."""
        file = self._root / "data" / "datasets" / f"{name}.txt"
        if not file.exists():
            there = ", ".join(sorted(each.stem for each in file.parent.glob("*.txt")))
            raise Explained(
                f"AppWorld has no data set {name!r} in {file.parent}"
                + (f"; there are {there}" if there else f"; type: {INSTALL}")
            )
        lines = file.read_text().split()
        return [line.partition(":")[0] for line in lines]

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return tuple(
            Task(
                f"{self.name}-{number}",
                (INSTRUCTION,),
                env=self.name,
                extras={"split": split, "index": index},
            )
            for index, number in enumerate(self._ids[split])
        )

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the world and the clock in it."""
        split, index = place_of(self, task, {s: len(ids) for s, ids in self._ids.items()})
        number = self._ids[split][index]
        python = shutil.which(self.python) or str(Path(self.python).expanduser().absolute())
        server = await self.pool.take(partial(Server, python, self._root, self.starts))
        try:
            given = await server.call(
                "initialize",
                self.starts,
                task_id=number,
                experiment_name=server.name,
                timeout_seconds=self.seconds,
            )
        except BaseException:
            self.pool.give(server)
            raise
        boss = given["supervisor"]
        seen = (
            f"Your supervisor is {boss['first_name']} {boss['last_name']}, {boss['email']}, {boss['phone_number']}. "
            f"It is {given['datetime']}.\nTask: {given['instruction']}"
        )
        return Step(Live(task, seed, (), seen, held=Held((server, number))), seen)

    async def step(self, state: Live, action: str) -> Step:
        held = state.enter()
        if held is None:
            raise ValueError("this state was closed; call reset for a new one")
        server, number = held
        code, patience = program(action), self.seconds + 30.0
        seen = await server.call("execute", patience, task_id=number, code=code)
        left = len(seen) - LONGEST
        seen = seen if left <= 0 else f"{seen[:LONGEST]}... ({left} more characters)"
        info = {"valid": not seen.startswith("Execution failed.")}
        if not await server.call("task_completed", patience, task_id=number):
            return Step(state.after(action, seen, False), seen, info=info)
        judged = await server.call("evaluate", patience, task_id=number, suppress_errors=True)
        passed, failed = len(judged["passes"]), len(judged["failures"])
        solved = bool(judged["success"])
        reward = passed / max(1, passed + failed) if self.pays == "share" else float(solved)
        end = End.SOLVED if solved else End.FAILED
        info = {**info, "passed": passed, "failed": failed}
        return Step(state.after(action, seen, True), seen, reward, end, info)

    async def fork(self, state: Live) -> Live:
        return await forked(self, state, not_copied)

    async def close(self, state: Live) -> None:
        held, state.held.thing = state.held.thing, None
        if held is not None:
            await asyncio.to_thread(self.pool.give, held[0])
