"""`ludus env list | check | serve | play`: worlds by name, examined, served to other machines, and played by hand."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ludus.types import Env as World
from ludus.types import Explained, Image, Message, Step

console = Console()
Text = tyro.conf.Positional
Changes = Annotated[
    tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUE"), tyro.conf.UseAppendAction
]


@dataclass(frozen=True)
class List:
    """Every world of the package, by the name that check, serve and play take.

    A world of your own is named FILE.py:NAME, where NAME is a class, a function or a value in FILE.py (see
    docs/own-environment.md); with one of them in the file, FILE.py alone will do.

    Args:
        find: only worlds with this in their name or description.
        json: one JSON object a line instead of a table.
    """

    find: Text[str] = ""
    json: bool = False

    def __call__(self) -> None:
        from ludus.envs.named import entries

        wanted = self.find.lower()
        found = [e for e in entries() if wanted in f"{e.name} {e.title}".lower()]
        if self.json:
            for entry in found:
                print(json.dumps(asdict(entry)))
            return
        table = Table(box=None)
        table.add_column("name", no_wrap=True)
        table.add_column("world")
        for folder, inside in groupby(sorted(found, key=lambda e: e.folder), lambda e: e.folder):
            if folder:
                table.add_row(f"\n[bold]{folder}[/]")
            for entry in inside:
                needs = f" [dim](needs {', '.join(entry.wants)})[/]" if entry.wants else ""
                table.add_row(escape(entry.name), escape(entry.title) + needs)
        console.print(table)
        console.print(
            "What a world needs is given with --set, or in a file of your own: FILE.py:NAME, for example\n"
            "  ludus env check mine.py:MyWorld",
            highlight=False,
        )


@dataclass(frozen=True)
class Check:
    """Examine a world: determinism per seed, sessions apart, honest ends, fork or refusal, hostile text, pictures.

    Exits with 1 if a promise is not kept. For example

        ludus env check mine.py:MyWorld
        ludus env check grid:grid --tasks 10
        ludus env check http://10.0.0.5:8765

    Args:
        env: a name from `ludus env list`, FILE.py:NAME, or the address of a server.
        tasks: how many of each split are played.
        turns: of a game at most.
        sessions: open side by side.
        deadline: seconds that one call may take.
        set: an argument of the world, as often as needed: --set train=20.
        json: one JSON object a line instead of a table.
    """

    env: Text[str]
    tasks: int = 3
    turns: int = 20
    sessions: int = 8
    deadline: float = 60.0
    set: Changes = ()
    json: bool = False

    def __call__(self) -> None:
        from ludus.envs.conformance import examine

        world = chosen(self.env, self.set)
        findings = asyncio.run(
            examine(
                world,
                tasks=self.tasks,
                turns=self.turns,
                sessions=self.sessions,
                deadline=self.deadline,
            )
        )
        failed = [finding for finding in findings if finding.verdict == "failed"]
        if self.json:
            for finding in findings:
                print(json.dumps(asdict(finding)))
        else:
            colours = {"ok": "green", "failed": "bold red", "note": "yellow", "not seen": "dim"}
            table = Table("check", "verdict", "what was seen", title=escape(world.name))
            for finding in findings:
                verdict = f"[{colours[finding.verdict]}]{finding.verdict}[/]"
                table.add_row(finding.check, verdict, escape(printable(finding.told)))
            console.print(table)
            console.print(f"{len(failed)} of {len(findings)} checks failed", highlight=False)
        if failed:
            sys.exit(1)


@dataclass(frozen=True)
class Serve:
    """Serve a world over HTTP, to `Remote(url)` (ludus.envs.service.remote) and AgentGym's clients, until interrupted.

    For example

        ludus env serve mine.py:MyWorld
        ludus env serve grid:grid --set width=6 --port 9000
        LUDUS_ENV_TOKEN=$(openssl rand -hex 16) ludus env serve mine.py:MyWorld --host 0.0.0.0

    The address has /docs (what can be called), /health and /metrics (for Prometheus).

    Args:
        env: a name from `ludus env list`, or FILE.py:NAME.
        host: what to listen on; beyond this machine (0.0.0.0, say) a token is wanted.
        port: of the server.
        token: that clients must send; better in the variable LUDUS_ENV_TOKEN, as others see a command line.
        sessions: open at a time; one more is refused with 429.
        in_flight: calls under way at a time; more are refused with 503.
        idle: seconds after which a session that nobody calls is closed.
        deadline: seconds of one call of the world.
        set: an argument of the world, as often as needed: --set train=20.
        bare_ids: /create answers a number alone, as AgentGym's client of SearchQA wants it.
    """

    env: Text[str]
    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    sessions: int = 10_000
    in_flight: int = 8192
    idle: float = 600.0
    deadline: float = 60.0
    set: Changes = ()
    bare_ids: bool = False

    def __call__(self) -> None:
        from ludus.envs.service.serve import server
        from ludus.envs.service.sessions import Limits

        if min(self.sessions, self.in_flight, self.idle, self.deadline) <= 0:
            raise Explained("--sessions, --in-flight, --idle and --deadline are numbers above 0")
        world = chosen(self.env, self.set)
        limits = Limits(
            sessions=self.sessions,
            in_flight=self.in_flight,
            idle=self.idle,
            deadline=self.deadline,
        )
        token = self.token or os.environ.get("LUDUS_ENV_TOKEN", "")
        made = server(
            world,
            host=self.host,
            port=self.port,
            token=token,
            limits=limits,
            bare_ids=self.bare_ids,
        )
        url = f"http://{self.host}:{self.port}"
        console.print(
            f"{world.name} at {url}  (what can be called: {url}/docs)\n"
            f"  from Python: ludus.envs.service.remote.Remote({url!r})\n"
            f"  by hand:     ludus env play {url}",
            highlight=False,
            soft_wrap=True,
        )
        made.run()
        if not made.started:  # the server has said why
            sys.exit(1)


@dataclass(frozen=True)
class Play:
    """Play a world in the terminal, as a model would: what it would be told, and what it would be paid.

    An empty line is an action too; end with Ctrl-D or Ctrl-C. For example

        ludus env play books:minecraft
        ludus env play grid:grid --split test --task 3
        ludus env play mine.py:MyWorld --seed 5

    Args:
        env: a name from `ludus env list`, FILE.py:NAME, or the address of a server.
        split: of the task.
        task: its place in the split, from 0, or its id.
        seed: of the world.
        turns: allowed.
        set: an argument of the world, as often as needed: --set train=20.
    """

    env: Text[str]
    split: Literal["train", "test"] = "train"
    task: str = "0"
    seed: int = 0
    turns: int = 100
    set: Changes = ()

    def __call__(self) -> None:
        world = chosen(self.env, self.set)
        tasks = world.tasks(self.split)
        ids = {task.id: at for at, task in enumerate(tasks)}
        place = ids.get(self.task, int(self.task) if self.task.isdecimal() else -1)
        if not 0 <= place < len(tasks):
            raise Explained(
                f"--task {self.task}: {self.split} has tasks 0 to {len(tasks) - 1}"
                + (f", such as {tasks[0].id}" if tasks else "")
            )
        asyncio.run(self._play(world, tasks[place]))

    async def _play(self, world: World, task: Any) -> None:
        for message in task.prompt:
            tell(message.content)
        step = await world.reset(task, self.seed)
        total = float(step.reward)
        try:
            tell_step(step)
            for _ in range(self.turns):
                if step.end is not None:
                    break
                try:
                    action = input(
                        "> "
                    )  # in this thread: nothing else goes on meanwhile, and Ctrl-C is heard
                except (EOFError, KeyboardInterrupt):
                    break
                step = await world.step(step.state, action)
                total += float(step.reward)
                tell_step(step)
            ended = str(step.end) if step.end is not None else "not over"
            console.print(f"end: {ended}   reward: {total:g}", highlight=False)
        finally:
            close = getattr(world, "close", None)
            if close is not None:
                await close(step.state)


@dataclass(frozen=True)
class Env:
    """Worlds: list them, examine one, serve one to other machines, play one yourself.

    For example

        ludus env list
        ludus env check mine.py:MyWorld
        ludus env serve mine.py:MyWorld
        ludus env play grid:grid
    """

    command: Annotated[
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Check, tyro.conf.subcommand("check")]
        | Annotated[Serve, tyro.conf.subcommand("serve")]
        | Annotated[Play, tyro.conf.subcommand("play")],
        tyro.conf.arg(name=""),
    ]

    def __call__(self) -> None:
        self.command()


def chosen(name: str, changes: Sequence[str] = ()) -> World:
    """A world by its name, or the one behind an address."""
    if name.startswith(("http://", "https://")):
        from ludus.envs.service.remote import Remote

        if changes:
            raise Explained("--set changes a world where it is made: give it to `ludus env serve`")
        return Remote(name)
    from ludus.envs.named import load

    return load(name, changes)


def tell_step(step: Step) -> None:
    tell(Message("user", step.observation).content)
    if step.reward:
        console.print(f"[reward {step.reward:g}]", markup=False, highlight=False)


def tell(content: Sequence[str | Image]) -> None:
    """Text as it is, pictures as files to open; control characters are shown and not obeyed."""
    for part in content:
        if isinstance(part, Image):
            kind = ".png" if part.data.startswith(b"\x89PNG") else ".jpg"
            with tempfile.NamedTemporaryFile(suffix=kind, prefix="ludus-", delete=False) as file:
                file.write(part.data)
            part = f"(picture: {Path(file.name)})"
        console.print(printable(part), markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    return "".join(
        letter if letter in "\n\t" or letter.isprintable() else repr(letter)[1:-1]
        for letter in text
    )
