"""`ludus env` as a person types it, the conformance suite on bad worlds, and the page of the service."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import tyro
from tests.serving import running

from ludus.cli import COMMANDS
from ludus.envs.conformance import examine
from ludus.envs.named import UnknownEnv, entries, load
from ludus.envs.small.grid import grid
from ludus.envs.small.shapes import Shapes
from ludus.envs.small.sums import Sums
from ludus.types import CannotFork, End, Explained, Image, Step, Task

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "env-service.md"


def ludus(*words: str) -> None:
    """The command line's own parser and commands, in this process."""
    tyro.extras.subcommand_cli_from_dict(COMMANDS, args=[*words])()


def printed() -> dict[str, str]:
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return dict(blocks)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in printed().items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------------------------------------- names


def test_list_shows_the_worlds_of_the_package(capsys):
    ludus("env", "list", "--json")
    rows = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["grid:grid"]["wants"] == [] and rows["grid:grid"]["title"]
    assert "starts" in rows["grid:Grid"]["wants"]
    assert "science_games:ScienceGames" in rows
    assert "books:minecraft" in rows and not any(
        "Guarded" in name or "Remote" in name for name in rows
    )
    ludus("env", "list", "textcraft")
    shown = capsys.readouterr().out
    assert "books:generated" in shown and "FILE.py:NAME" in shown


def test_small_worlds_are_made_by_name():
    for name in ("forks:Forks", "grid:corridor", "lookup:Lookup", "shop", "sums", "memory"):
        assert load(name).tasks("test")
    assert len(load("sums", ["train=7"]).tasks("train")) == 7
    assert {entry.name for entry in entries() if not entry.wants} >= {"grid:grid", "sums:Sums"}


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("grod:grid", [], "did you mean grid"),
        ("nowhere.py:World", [], "there is no file nowhere.py"),
        ("grid:Gird", [], "it has Grid"),
        ("textcraft:TextCraft", [], "mine.py:NAME"),
        ("grid:grid", ["wdith=3"], "wdith"),
        ("grid:grid", ["width"], "give FIELD=VALUE"),
        ("own.py", [], "one, two"),
        ("own.py:number", [], "neither an environment nor a class"),
        ("own.py:nothing", [], "without name, tasks, reset, step"),
        ("own.py:one", ["train=3"], "made already"),
    ],
)
def test_names_that_are_none_are_explained(name, changes, told, desk):
    (desk / "own.py").write_text(
        "from ludus.envs.small.sums import Sums\none = Sums()\ntwo = Sums()\nnumber = 3\ndef nothing(): return {}\n"
    )
    with pytest.raises(UnknownEnv, match=re.escape(told)):
        load(name, changes)
    assert load("own.py:one").name == "sums"


# ---------------------------------------------------------------------------------------------- check


@pytest.mark.parametrize("world", [grid(), Sums(train=9, test=4), Shapes(train=9, test=4)])
def test_good_worlds_pass(world):
    findings = asyncio.run(examine(world))
    assert not [str(finding) for finding in findings if finding.verdict == "failed"]
    seen = {finding.check: finding.verdict for finding in findings}
    assert seen["ends are honest"] == "ok" and len(seen) == len(findings) >= 18


@dataclass
class Good:
    """Three steps and an end; each of those below breaks one promise of it."""

    name: str = "good"

    def tasks(self, split: str = "train") -> list[Task]:
        return [Task(f"{split}-{n}") for n in range(3)]

    async def reset(self, task: Task, seed: int) -> Step:
        return Step((seed, 0), f"begin {seed}")

    async def step(self, state: Any, action: str) -> Step:
        seed, n = state
        if n == 3:
            raise ValueError("over; call reset")
        return Step((seed, n + 1), f"{seed} {n + 1}", 0.0, End.FAILED if n == 2 else None)

    async def fork(self, state: Any) -> Any:
        return state


class Forgetful(Good):
    """One state for all sessions."""

    async def reset(self, task: Task, seed: int) -> Step:
        self.now = (seed, 0)
        return Step(None, f"begin {seed}")

    async def step(self, state: Any, action: str) -> Step:
        found = await super().step(self.now, action)
        self.now = found.state
        return replace(found, state=None)


class Dice(Good):
    rolls = 0

    async def reset(self, task: Task, seed: int) -> Step:
        self.rolls += 1
        return Step((seed, 0), f"begin {self.rolls}")


class Shared(Good):
    """Its states are lists that are changed in place, and a fork is no copy."""

    async def reset(self, task: Task, seed: int) -> Step:
        return Step([seed, 0], "begin")

    async def step(self, state: Any, action: str) -> Step:
        if state[1] == 3:
            raise ValueError("over; call reset")
        state[1] += 1
        return Step(state, f"{state[1]}", 0.0, End.FAILED if state[1] == 3 else None)


class Astray(Good):
    """A copy begins anew."""

    async def fork(self, state: Any) -> Any:
        return state[0], 0


class Liar(Good):
    async def step(self, state: Any, action: str) -> Step:
        found = await super().step(state, action)
        return replace(found, end=End.ENV_CRASHED) if found.end else found


class Generous(Good):
    async def step(self, state: Any, action: str) -> Step:
        found = await super().step(state, action)
        return found if action.strip() else replace(found, end=End.SOLVED, reward=1.0)


class Echo(Good):
    async def step(self, state: Any, action: str) -> Step:
        return replace(await super().step(state, action), observation=action)


class Fragile(Good):
    async def step(self, state: Any, action: str) -> Step:
        action.encode()
        return await super().step(state, action)


class Blot(Good):
    async def reset(self, task: Task, seed: int) -> Step:
        return Step((seed, 0), ("look", Image(b"\x89PNG\r\n\x1a\nnot one")))


class Twins(Good):
    def tasks(self, split: str = "train") -> list[Task]:
        return [Task("same")]


@pytest.mark.parametrize(
    ("make", "check", "told"),
    [
        (Forgetful, "sessions are apart", "goes otherwise"),
        (Dice, "same seed, same world", "the first time"),
        (Shared, "fork, or a refusal", "after a step of its copy"),
        (Astray, "fork, or a refusal", "of a copy is"),
        (Liar, "ends are honest", "not a world's to say"),
        (Generous, "hostile: an empty action", "it solved the task"),
        (Echo, "hostile: a very long action", "100000 characters"),
        (Fragile, "hostile: a lone surrogate", "UnicodeEncodeError"),
        (Blot, "pictures", "cannot be opened"),
        (Twins, "tasks are listed", "occurs twice"),
    ],
)
def test_a_broken_promise_is_found(make: Callable[[], Any], check: str, told: str):
    assert not [f for f in asyncio.run(examine(Good())) if f.verdict == "failed"]
    findings = {finding.check: finding for finding in asyncio.run(examine(make()))}
    assert findings[check].verdict == "failed" and told in findings[check].told


def test_a_refusal_to_fork_is_no_failure():
    class Refusing(Good):
        async def fork(self, state: Any) -> Any:
            raise CannotFork("there is one door")

    findings = {finding.check: finding for finding in asyncio.run(examine(Refusing()))}
    assert (findings["fork, or a refusal"].verdict, "one door") == (
        "note",
        findings["fork, or a refusal"].told.removeprefix("refuses: there is "),
    )


def test_check_prints_a_table_and_its_exit_code_tells(capsys, desk):
    ludus("env", "check", "secret.py")
    told = capsys.readouterr().out
    assert "0 of 18 checks failed" in told and "same seed" in told
    (desk / "bad.py").write_text(
        "from secret import Secret\n"
        "class Bad(Secret):\n"
        "    async def step(self, state, action): raise RuntimeError('no')\n"
    )
    with pytest.raises(SystemExit) as stop:
        ludus("env", "check", "bad.py:Bad", "--json")
    assert stop.value.code == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any("raised RuntimeError: no" in row["told"] for row in rows)
    sys.modules.pop("secret", None)


# ---------------------------------------------------------------------------------------------- play


def test_a_person_plays_in_the_terminal(monkeypatch, capsys, desk):
    monkeypatch.setattr("sys.stdin", io.StringIO("5\n\n6\n"))
    ludus("env", "play", "secret.py", "--seed", "5", "--split", "test", "--task", "test-3")
    told = capsys.readouterr().out
    assert "Find a number" in told and "[reward 1]" in told and "end: solved   reward: 1" in told
    monkeypatch.setattr("sys.stdin", io.StringIO("5\n"))
    ludus("env", "play", "secret.py")
    assert "end: not over   reward: 0" in capsys.readouterr().out
    with pytest.raises(Explained, match="0 to 199, such as train-0"):
        ludus("env", "play", "secret.py", "--task", "200")


def test_play_shows_pictures_as_files_and_control_characters_as_text(monkeypatch, capsys, desk):
    (desk / "odd.py").write_text(
        "from ludus.types import *\n"
        "from secret import Secret\n"
        "class Odd(Secret):\n"
        "    async def reset(self, task, seed):\n"
        "        return Step(0, ('\\x1b[2J[bold]', Image(b'\\x89PNG\\r\\n\\x1a\\n')))\n"
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    ludus("env", "play", "odd.py:Odd")
    told = capsys.readouterr().out
    assert r"\x1b[2J[bold]" in told
    (file,) = re.findall(r"\(picture: (\S+\.png)\)", told)
    assert Path(file).read_bytes().startswith(b"\x89PNG")
    Path(file).unlink()
    sys.modules.pop("secret", None)


# ---------------------------------------------------------------------------------------------- serve


def test_serve_is_a_process_that_answers_and_stops(desk):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ludus.cli", "env", "serve", "secret.py", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(600):
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/about").json()["name"] == "secret"
                break
            except httpx.TransportError:
                assert process.poll() is None
                time.sleep(0.1)
        else:
            raise AssertionError("it did not come up in a minute")
    finally:
        process.terminate()
        told, _ = process.communicate(timeout=30)
    assert f"Remote('http://127.0.0.1:{port}')" in told and "Traceback" not in told


def test_serve_beyond_this_machine_wants_a_token(monkeypatch, desk):
    monkeypatch.delenv("LUDUS_ENV_TOKEN", raising=False)
    with pytest.raises(Explained, match="openssl rand"):
        ludus("env", "serve", "secret.py", "--host", "0.0.0.0")
    with pytest.raises(Explained, match="above 0"):
        ludus("env", "serve", "secret.py", "--idle", "0")


# ---------------------------------------------------------------------------------------------- the page


def test_the_world_of_the_page_is_served_and_trained_on_in_under_40_lines(desk, monkeypatch):
    from ludus import recipes
    from ludus.engines.local.build import build
    from ludus.models import tiny
    from ludus.train.recipe import Evaluation
    from ludus.train.run import run

    files = printed()
    lines = [line for name in ("secret.py", "afar.py") for line in files[name].splitlines()]
    assert len([line for line in lines if line.strip()]) < 40
    tokenizer = tiny.tokenizer()
    tiny.model(tiny.Size(hidden=64, layers=2, heads=2), len(tokenizer)).save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    with running(load("secret.py")) as (url, made):
        (desk / "afar.py").write_text(files["afar.py"].replace("http://127.0.0.1:8765", url))
        recipe = recipes.load("afar.py").recipe
        short = replace(recipe, steps=1, tasks=48, evaluation=Evaluation(tasks=4, max_turns=2))
        run(short, lambda: build(short, "tiny"), desk / "run", seed=0)
        assert not made.state.sessions.open
    (line,) = (desk / "run" / "metrics.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["lost"] == 0 and found["success"] > 0 and found["grad_norm"] > 0


def test_the_readers_other_block_runs(desk):
    space: dict[str, Any] = {}
    exec((desk / "original.py").read_text(), space)
    assert len(space["textcraft"].tasks("test")) == 100
