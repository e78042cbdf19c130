"""The guides: every link leads somewhere, every command exists, and the code runs exactly as it is printed."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import tyro

from ludus import recipes
from ludus.cli import COMMANDS, systems_page
from ludus.envs.guard import checked
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Recipe, check
from ludus.train.run import run
from ludus.types import Batch, Env, Step

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
GUIDES = [ROOT / "docs" / "own-environment.md", ROOT / "docs" / "own-algorithm.md"]
NAMED = re.compile(r"# (\w+\.py)(?:, continued)?\n")
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def programs(page: Path) -> dict[str, str]:
    """The files that a page prints: blocks that begin with `# name.py`, those of one name joined."""
    files: dict[str, str] = {}
    for block in blocks(page, "python"):
        named = NAMED.match(block)
        assert named, (
            f"a block of {page.name} does not begin with its file's name, so it is not run"
        )
        files[named[1]] = files.get(named[1], "") + block
    return files


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, with the files that the two guides print."""
    for guide in GUIDES:
        for name, text in programs(guide).items():
            (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in tmp_path.glob("*.py"):
        sys.modules.pop(name.stem, None)


def load(name: str) -> ModuleType:
    return recipes.load(name)


def execute(name: str) -> None:
    """Run a file as a program, `python NAME` in the desk's folder."""
    runpy.run_path(name, run_name="__main__")


# ------------------------------------------------------------------------------------------ words


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"<!--.*?-->", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert "://" in target or (page.parent / target.partition("#")[0]).exists(), target


@pages
def test_names_exist(page: Path) -> None:
    """Whatever is printed as `ludus.module.name` can be imported."""
    for dotted in re.findall(r"`(ludus(?:\.\w+)+)`", page.read_text()):
        module, _, name = dotted.rpartition(".")
        try:
            importlib.import_module(dotted)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), name), dotted


@pages
def test_commands_exist(page: Path) -> None:
    """Commands are read by the command line's own parser, and not run."""
    makefile = (ROOT / "Makefile").read_text()
    lines = [line.partition("#")[0] for block in blocks(page, "sh") for line in block.splitlines()]
    lines += re.findall(r"`((?:ludus|make) [^`]*)`", page.read_text())
    for words in map(shlex.split, lines):
        if words[:1] == ["make"]:
            assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in words[1:]), words
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), words
        elif words[:1] == ["python"]:
            assert words[1] in programs(page), words
        elif words[:1] == ["ludus"]:
            assert words[1] in COMMANDS, words
            if len(words) > 2 and "--help" not in words:  # more than the mention of a command
                tyro.extras.subcommand_cli_from_dict(COMMANDS, args=words[1:])


def test_the_readme_prints_what_the_guides_print() -> None:
    printed = [block for guide in GUIDES for block in blocks(guide, "python")]
    shown = blocks(ROOT / "README.md", "python")
    assert len(shown) == 3
    assert all(block in printed for block in shown)


# ------------------------------------------------------------------------------------------ an environment


def outline(step: Step) -> tuple[Any, ...]:
    return step.state, step.observation, step.reward, step.end


async def played(env: Env, task: Any, seed: int, actions: list[str]) -> list[tuple[Any, ...]]:
    """A game, every step of which is what an environment may answer."""
    steps = [checked(await env.reset(task, seed), env.name)]
    for action in actions:
        steps.append(checked(await env.step(steps[-1].state, action), env.name))
        if steps[-1].end is not None:
            break
    return [outline(step) for step in steps]


def test_the_environment_keeps_its_promises(desk: Path) -> None:
    env: Env = load("guess.py").GuessNumber()
    train, test = env.tasks("train"), env.tasks("test")
    assert {task.id for task in train}.isdisjoint(task.id for task in test)
    assert len({task.id for task in train}) == len(train)
    hostile = ["", "\0", "9" * 10_000, "\u0663", "-1", "I think it is 4, or 5", "seven", "\ud800"]
    for seed in range(20):
        game = asyncio.run(played(env, train[0], seed, hostile))
        assert game == asyncio.run(played(env, train[0], seed, hostile))
    solved = [asyncio.run(played(env, train[0], seed, list("123456789")))[-1] for seed in range(50)]
    assert all(end == "solved" and reward == 1.0 for _, _, reward, end in solved)
    assert {state for state, *_ in solved} == set(range(1, 10))


def test_the_environment_is_played_by_hand(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("5\nseven\n8\n6\n"))
    execute("play.py")
    said = "Guess. > higher > Write a number. > lower > Right. reward 1.0 end: solved\n"
    assert capsys.readouterr().out == said


def one_step(recipe: Recipe, out: Path) -> dict[str, float]:
    """The metrics of one training step of the guide's random model, through the run folder."""
    from ludus.engines.local.build import build

    execute("tiny_model.py")
    # from random weights a game is won once in a hundred, and a step without any teaches nothing
    short = replace(recipe, steps=1, tasks=48, evaluation=Evaluation(tasks=4, max_turns=2))
    run(short, lambda: build(short, "tiny"), out, seed=0)
    assert (out / "report.html").exists()
    (line,) = (out / "metrics.jsonl").read_text().splitlines()
    return json.loads(line)


def test_the_environment_is_trained_on(desk: Path) -> None:
    found = one_step(load("guess.py").recipe, desk / "run")
    assert found["lost"] == 0
    assert found["success"] > 0, "no game was won by chance, so nothing was learnt from"
    assert found["grad_norm"] > 0


# ------------------------------------------------------------------------------------------ an algorithm


def batch() -> Batch:
    """Groups of 4, 2 and 1 attempts, two turns of two tokens each after a prompt; attempt 3 was lost to a fault."""
    reward = torch.tensor([1.0, 0.0, 0.0, 9.0, 1.0, 0.5, 1.0])
    rows = len(reward)
    turn = torch.tensor([-1, 0, 0, -1, 1, 1]).repeat(rows, 1)
    return Batch(
        tokens=torch.ones(rows, 6, dtype=torch.int64),
        mask=turn >= 0,
        logp=torch.zeros(rows, 6),
        turn=turn,
        rollout=torch.arange(rows),
        group=torch.tensor([0, 0, 0, 0, 1, 1, 2]),
        reward=reward,
        scored=torch.tensor([True, True, True, False, True, True, True]),
        turn_reward=torch.zeros(rows, 2),
    )


def test_the_estimator_by_hand(desk: Path) -> None:
    """Medians of what is scored: 0 of (1, 0, 0); the lower one, 0.5, of (1, 0.5); nothing of one attempt."""
    given, module = batch(), load("median.py")
    wanted = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0])
    assert torch.equal(module.over_the_median(given), given.spread(wanted))
    assert module.over_the_median(given)[0].tolist() == [0, 1, 1, 0, 1, 1]
    # one turn came after the first one, so it counts 0.9
    torch.testing.assert_close(
        module.discounted(given)[4], torch.tensor([0, 0.45, 0.45, 0, 0.5, 0.5])
    )


def test_the_estimator_is_trained_with(desk: Path) -> None:
    module = load("median.py")
    check(module.recipe)
    check(module.later)
    found = one_step(replace(load("guess.py").recipe, credit=module.recipe.credit), desk / "run")
    assert found["grad_norm"] > 0


def test_the_claim_can_be_run(desk: Path) -> None:
    module = load("median.py")
    for claim in module.claims:
        assert isinstance(claim, Claim)
        assert {claim.better, claim.worse} <= set(module.arms)
    for arm in module.arms.values():
        check(arm)


# ------------------------------------------------------------------------------------------ tables


def test_the_batch_table_names_its_fields() -> None:
    rows = re.findall(r"^\| `(\w+)` \| \[", (GUIDES[1]).read_text(), re.MULTILINE)
    assert len(rows) >= 9
    assert set(rows) <= set(Batch.__dataclass_fields__)


def test_the_pieces_table_names_fields_of_a_recipe() -> None:
    table = GUIDES[1].read_text().partition("| piece |")[2]
    rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(rows) >= 6
    assert set(rows) <= set(Recipe.__dataclass_fields__)


def test_the_page_of_systems_is_as_it_would_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # verdicts are read from docs/replications
    assert (ROOT / "docs/systems.md").read_text() == systems_page(list(recipes.entries()))
