"""What the small worlds share: sides, draws, words, actions, and scripted play."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ludus.envs.small.grid import corridor
from ludus.envs.world import action_of, draw_for, listed, mixed, play, side
from ludus.types import End, Key, Message


def test_sides_are_halves_and_do_not_change():
    sides = [side(("a", number)) for number in range(4000)]
    assert 1900 < sides.count("test") < 2100
    # Held-out tasks of a stored run must still be held out: the hash is part of what is promised.
    assert "".join(side(number)[1] for number in range(8)) == "eererrrr"


def test_draws_belong_to_their_split_and_failures_are_drawn_again():
    for split in ("train", "test"):
        drawn = draw_for(split, Key(0), lambda rng: int(rng.integers(1000)) or None, lambda n: n)
        assert side(drawn) == split
        assert drawn == draw_for(split, Key(0), lambda rng: int(rng.integers(1000)), lambda n: n)
    with pytest.raises(ValueError, match="make the world larger"):
        draw_for("train", Key(0), lambda rng: None, lambda n: n)


def test_listed_words():
    assert listed("go on, go: 12 Go!", "on") == ("Go", "go", "on")


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("right", "right"),
        (" right.\n", "right"),
        ("I think.\nAction: read\n  badan.", "read badan"),
        ("Action: a Action: b", "b"),
        ("", ""),
        ("x" * 5000, "x" * 1000),
    ],
)
def test_the_action_of_a_message(message: str, action: str):
    assert action_of(message) == action


def test_play_and_players():
    world, rng = corridor(), np.random.default_rng(0)
    (task,) = world.tasks("test")
    game = asyncio.run(play(world, task, 0, mixed(world, 1.0), rng))
    assert [action for action, _ in game.turns] == ["right"] * 5
    assert (game.end, game.reward) == (End.SOLVED, 1)
    assert game.opening == (world.instruction, Message("user", "you 0 goal 5"))
    short = asyncio.run(play(world, task, 0, mixed(world, 1.0), rng, max_turns=2))
    assert (short.end, short.reward, len(short.turns)) == (End.OUT_OF_TURNS, 0, 2)
    lengths = [
        np.mean(
            [len(asyncio.run(play(world, task, 0, mixed(world, s), rng)).turns) for _ in range(40)]
        )
        for s in (0.0, 0.5, 1.0)
    ]
    assert lengths[0] > lengths[1] > lengths[2] == 5
