"""Chain sums: what is right, what a hint tells, and what the players write."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from ludus.data.hints import leaks
from ludus.envs.small.sums import State, Sums, given, in_words
from ludus.envs.world import Game, mixed, play
from ludus.rewards.forced_score import well_formed
from ludus.types import End, Task

SUMS = Sums(train=60, test=30)
STATE = State((2, 3, 1, 4))


def game(world: Sums, task: Task, share: float, seed: int = 0) -> Game:
    rng = np.random.default_rng(seed)
    return asyncio.run(play(world, task, 0, mixed(world, share), rng, 1))


def test_numbers_in_words():
    assert [in_words(n) for n in (0, 10, 19, 20, 21, 99)] == [
        *("zero", "ten", "nineteen", "twenty", "twenty one", "ninety nine")
    ]


def test_both_spellings_are_right_and_nothing_else_is():
    def ends(text: str) -> bool:
        return asyncio.run(SUMS.step(STATE, text)).end is End.SOLVED

    assert STATE.sums == (5, 6, 10)
    assert ends("<think> 5 6 10</think><answer> 10</answer>")
    assert ends("<answer>  ten\n</answer>") and ends("<answer> 9</answer> no, <answer>10</answer>")
    for wrong in ("10", "<answer> 10", "10</answer>", "<answer></answer>", "<answer> 1 0</answer>"):
        assert not ends(wrong), wrong
    assert given("a" * 10_000) == ""


def test_a_hint_tells_all_sums_but_the_last_and_never_the_answer():
    for world in (SUMS, replace(SUMS, reference="words")):
        for task in world.tasks():
            hint = world.hint(task)
            assert len(hint.split()) == task.difficulty - 2 and not leaks(hint, [task.answer])


def test_a_share_of_the_prompts_is_hinted():
    world = replace(SUMS, hinted=0.5)
    hinted = [task for task in world.tasks() if len(task.prompt) == 2]
    assert 15 < len(hinted) < 45 and len(hinted[0].prompt[1].text.split()) > 2
    assert not any(len(task.prompt) == 2 for task in SUMS.tasks())


@pytest.mark.parametrize("hinted", [0.0, 1.0])
def test_the_players(hinted: float):
    world = replace(SUMS, hinted=hinted)
    tasks = world.tasks("test")
    assert all(game(world, task, 1.0).end is End.SOLVED for task in tasks)
    games = [game(world, tasks[s % len(tasks)], 0.0, s) for s in range(200)]
    assert all(well_formed(g.turns[0][0]) for g in games)
    # one sum is left to get right, or three to five of them
    share = float(np.mean([g.end is End.SOLVED for g in games]))
    assert 0.4 < share < 0.65 if hinted else share < 0.3
    for each in games:  # as many sums as the task has
        thoughts = each.turns[0][0].split("</think>")[0].split()[1:]
        assert len(thoughts) == each.task.difficulty - 1


def test_answers_in_words():
    world = replace(SUMS, spelled=1.0, reference="words")
    task = world.tasks()[0]
    assert game(world, task, 1.0).turns[0][0].endswith(f"<answer> {task.answer}</answer>")


def test_what_cannot_be():
    with pytest.raises(ValueError, match="sums below 100"):
        Sums(terms=(2, 30))
