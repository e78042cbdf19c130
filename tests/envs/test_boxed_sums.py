"""Sums with a boxed answer: what is read from the box, what it pays, and what the players write."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ludus.envs.small.boxed_sums import BoxedSums, boxed, written
from ludus.envs.small.sums import State, Sums
from ludus.envs.world import mixed, play
from ludus.models import tiny
from ludus.types import End

WORLD = BoxedSums(Sums(terms=(3, 4), train=60, test=30), right=100.0, form=10.0)
STATE = State((2, 3, 1, 4))


@pytest.mark.parametrize(
    ("said", "reward", "end"),
    [
        (" 5 6 10 The final answer is: \\boxed{10}", 100.0, End.SOLVED),
        ("\\boxed{9} no, \\boxed{ 10 }", 100.0, End.SOLVED),
        ("\\boxed{9}", 10.0, End.FAILED),
        ("\\boxed{10} or \\boxed{}", 0.0, End.FAILED),
        ("\\boxed{10", 0.0, End.FAILED),
        ("10", 0.0, End.FAILED),
        ("", 0.0, End.FAILED),
    ],
)
def test_rewards(said: str, reward: float, end: End) -> None:
    step = asyncio.run(WORLD.step(STATE, said))
    assert (step.reward, step.end) == (reward, end)


def test_the_players() -> None:
    assert WORLD.expert(STATE) == written((5, 6, 10)) == " 5 6 The final answer is: \\boxed{10}"
    rng = np.random.default_rng(0)
    tasks = WORLD.tasks()
    solved = {
        share: np.mean(
            [
                asyncio.run(play(WORLD, task, 0, mixed(WORLD, share), rng, 1)).end is End.SOLVED
                for task in tasks
                for _ in range(5)
            ]
        )
        for share in (0.0, 1.0)
    }
    assert solved[1.0] == 1.0 and 0.2 < solved[0.0] < 0.6


def test_a_slip_is_of_one_and_is_gone_on_from() -> None:
    always = BoxedSums(WORLD.sums, gaps=1.0, wrong=1.0)
    assert always.beginner(STATE, np.random.default_rng(0)) == written((6, 8, 13))
    assert boxed(always.beginner(STATE, np.random.default_rng(0))) == "13"


def test_every_word_is_one_token() -> None:
    tokenizer = tiny.tokenizer(WORLD.words())
    ids = tokenizer(written((5, 12, 10)), add_special_tokens=False)["input_ids"]
    assert [tokenizer.decode([i]) for i in ids] == [
        *(" 5", " 1", "2", " The", " final", " answer", " is", ":"),
        *(" \\", "boxed", "{", "1", "0", "}"),
    ]
