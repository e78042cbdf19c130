"""Every small world: its players, its splits, its words, and what it does with text that makes no sense."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from ludus.envs.corpus.deep_search import DeepSearch
from ludus.envs.corpus.local_pages import LocalPages
from ludus.envs.corpus.search import Desk
from ludus.envs.games.countdown import Countdown
from ludus.envs.games.frozen_lake import FrozenLake
from ludus.envs.games.guess_number import GuessNumber
from ludus.envs.games.maze import Maze
from ludus.envs.games.sokoban import Sokoban
from ludus.envs.games.sokoban import drawn as room_of
from ludus.envs.games.twenty48 import Twenty48
from ludus.envs.games.wordle import Wordle
from ludus.envs.guard import checked
from ludus.envs.small.boxed_sums import BoxedSums
from ludus.envs.small.chains import Chains
from ludus.envs.small.critiques import Critiques
from ludus.envs.small.forks import Forks
from ludus.envs.small.grid import corridor, grid
from ludus.envs.small.lookup import Lookup
from ludus.envs.small.memory import Memory
from ludus.envs.small.praise import Praise
from ludus.envs.small.shapes import Shapes
from ludus.envs.small.shop import KINDS, Shop, everything_at_once
from ludus.envs.small.sql import TextToSQL
from ludus.envs.small.sums import Sums
from ludus.envs.web.websites import Websites
from ludus.envs.world import Game, World, mixed, play
from ludus.types import End, Step, Task


@dataclass(frozen=True)
class Case:
    """`what` tells tasks apart: no value of it may be in both splits; None where both ask the same by design."""

    name: str
    world: World
    turns: int
    what: Callable[[Any], object] | None


CASES = [
    Case("forks", Forks(train=40, test=20), 1, None),
    Case("held-out forks", Forks(held_out=1), 1, lambda state: (state.a, state.b)),
    Case("needle", Forks(8, 1, tuple(range(8)), values=1, train=4, test=4), 1, None),
    Case("grid", grid(), 6, lambda state: (state.at, state.goal)),
    Case("corridor", corridor(), 5, None),
    Case("sums", Sums(train=40, test=20), 1, lambda state: state.terms),
    Case("boxed sums", BoxedSums(Sums(train=40, test=20)), 1, lambda state: state.terms),
    Case("memory", Memory(train=40, test=20), 13, lambda state: (state.facts, state.asked)),
    Case("lookup", Lookup(train=40, test=20), 5, lambda state: state.chain),
    Case("deep search", DeepSearch(train=60, test=30), 6, lambda state: state.question.text),
    Case(
        "deep search in tags",
        DeepSearch(desk=Desk(), train=60, test=30),
        5,
        lambda state: state.question.text,
    ),
    Case(
        "local pages",
        LocalPages(DeepSearch(train=60, test=30)),
        16,
        lambda state: state.question.text,
    ),
    Case("shop", Shop(KINDS, train=100, test=50), 8, lambda state: state.wish.instruction),
    Case(
        "open shop",
        Shop(KINDS, everything_at_once, train=100, test=50),
        8,
        lambda state: state.wish.instruction,
    ),
    Case("chains", Chains(train=60, test=30), 1, lambda state: state.terms),
    Case("critiques", Critiques(train=80, test=40), 2, lambda state: (state.first, state.second)),
    Case("shapes", Shapes(train=60, test=30), 1, lambda state: state.cells),
    Case("praise", Praise(train=60, test=30), 1, lambda state: (state.a, state.b)),
    Case("sql", TextToSQL(train=60, test=30), 1, lambda state: (state.script, state.question)),
    Case("sokoban", Sokoban(train=60, test=30), 10, room_of),
    Case("two boxes", Sokoban(boxes=2, moves=(6, 16), train=20, test=10), 16, room_of),
    # On slippery ice nobody always wins; tests/envs/test_games.py has that lake, and the share that its expert wins.
    Case("frozen lake", FrozenLake(train=60, test=30), 8, lambda state: state.lake),
    Case("maze", Maze(train=60, test=30), 12, lambda state: (state.plan, state.you)),
    Case(
        "maze unseen",
        Maze(view="walls", moves=(4, 12), train=60, test=30),
        25,
        lambda state: (state.plan, state.you),
    ),
    Case(
        "countdown",
        Countdown(train=60, test=30),
        1,
        lambda state: (sorted(state.numbers), state.target),
    ),
    Case(
        "guess number",
        GuessNumber(train=60, test=30),
        7,
        lambda state: (state.least, state.most, state.secret),
    ),
    Case("wordle", Wordle(train=60, test=30), 6, lambda state: state.secret),
    # Time is all that a beginner needs for a tile of 64, so it is the turns that tell players apart.
    Case("2048", Twenty48(target=64, train=40, test=20), 46, lambda state: state.board),
    Case("websites", Websites(train=36, test=36), 6, lambda state: state.start.goal.identity),
    Case(
        "a shop",
        Websites(("shop",), ("shop price", "shop cancel"), train=60, test=30),
        4,
        lambda state: state.start.goal.identity,
    ),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

HOSTILE = [
    "",
    " \n\t",
    "\x00",
    "\ud800",
    "a" * 100_000,
    "Action:" * 5_000,
    "call " * 5_000,
    "call\n" * 5_000,
    "answer " + "9" * 5_000,
    "search " + "(" * 3_000,
    "read ../../etc/passwd",
    "call cancel ٣١",
    "select " + "(" * 5_000,
    "```sql\n" * 500,
    "<answer>" * 500,
    "rīght 🙂 \u202eleft",
    "north " * 5_000,
]


def reset(world: World, task: Task) -> Step:
    return asyncio.run(world.reset(task, 0))


def game(case: Case, task: Task, share: float, seed: int = 0) -> Game:
    rng = np.random.default_rng(seed)
    return asyncio.run(play(case.world, task, 0, mixed(case.world, share), rng, case.turns))


@every
def test_it_is_a_world_with_tasks_of_its_own(case: Case):
    assert isinstance(case.world, World)
    train, test = case.world.tasks("train"), case.world.tasks("test")
    ids = [task.id for task in (*train, *test)]
    assert train and test and len(set(ids)) == len(ids)
    assert all(task.env == case.world.name for task in (*train, *test))
    assert list(case.world.tasks("test")) == list(test)
    with pytest.raises(ValueError, match="take tasks from"):
        reset(case.world, replace(test[0], env="another"))
    with pytest.raises(ValueError, match="take tasks from"):
        reset(case.world, replace(test[0], extras={"split": "test", "index": len(test)}))


@every
def test_no_task_is_in_both_splits(case: Case):
    if case.what is None:
        return
    seen = {
        split: {repr(case.what(reset(case.world, task).state)) for task in case.world.tasks(split)}
        for split in ("train", "test")
    }
    assert not seen["train"] & seen["test"]


@every
def test_the_expert_solves_every_held_out_task_in_the_turns_that_are_claimed(case: Case):
    for task in case.world.tasks("test"):
        played = game(case, task, 1.0)
        assert played.end is End.SOLVED and played.reward == 1, played


@every
def test_the_beginner_plays_by_the_rules_and_seldom_wins(case: Case):
    tasks = case.world.tasks("test")
    games = [game(case, tasks[seed % len(tasks)], 0.0, seed) for seed in range(100)]
    assert all(action for played in games for action, _ in played.turns)
    assert sum(played.end is End.SOLVED for played in games) < 40


@every
def test_more_expertise_wins_more_often_from_wherever_a_beginner_left_off(case: Case):
    tasks = case.world.tasks("test")
    longer = replace(case, turns=3 * case.turns)
    won = [
        sum(game(longer, tasks[i % len(tasks)], share, i).end is End.SOLVED for i in range(100))
        for share in (0.0, 0.6, 1.0)
    ]
    assert won[0] < won[1] <= won[2] == 100


@every
def test_the_same_world_for_the_same_task_and_nothing_remembered(case: Case):
    task = case.world.tasks("test")[0]
    first, again = reset(case.world, task), reset(case.world, task)
    assert first == again
    whole = game(case, task, 0.5, seed=3)
    assert whole == game(case, task, 0.5, seed=3)
    # One state, stepped twice: a branch does not see what the other one did.
    action = case.world.expert(first.state)
    after = [asyncio.run(case.world.step(first.state, action)) for _ in range(2)]
    other = asyncio.run(
        case.world.step(first.state, case.world.beginner(first.state, np.random.default_rng(1)))
    )
    assert after[0] == after[1] == asyncio.run(case.world.step(first.state, action))
    assert checked(other, case.world.name)


@every
def test_hostile_text_is_answered_and_never_pays(case: Case):
    start = reset(case.world, case.world.tasks("test")[0])
    for text in HOSTILE:
        step = checked(asyncio.run(case.world.step(start.state, text)), case.world.name)
        assert step.reward == 0 and step.end in (None, End.FAILED)
        assert len(str(step.observation)) < 3_000


@every
def test_a_game_that_is_over_is_over(case: Case):
    played = game(case, case.world.tasks("test")[0], 1.0)
    with pytest.raises(ValueError, match="call reset"):
        asyncio.run(case.world.step(played.turns[-1][1].state, "ok"))


# As the tokenizer of the tiny models cuts text, and what it knows with a space before it, whatever the world.
PIECE = re.compile(r" ?[^\W\d_]+| ?\d| ?(?:[^\s\w]|_)|\s")


ALWAYS_KNOWN = "0123456789[("


def pieces(text: str) -> list[str]:
    found = PIECE.findall(text)
    assert "".join(found) == text
    return found


@every
def test_every_text_is_of_the_listed_words(case: Case):
    words = set(case.world.words())
    assert len(words) == len(case.world.words()) < 250
    for seed, task in enumerate(case.world.tasks("test")[:20]):
        played = game(case, task, 0.5, seed)
        texts = [message.text for message in played.opening]
        texts += [action for action, _ in played.turns]
        texts += [str(step.observation) for _, step in played.turns if step.end is None]
        for text in texts:
            for piece in pieces(text):
                known = piece.strip() in {*words, *ALWAYS_KNOWN}
                assert known or (len(piece) == 1 and not piece.isalnum()), (piece, text)
