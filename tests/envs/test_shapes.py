"""Coloured shapes: the picture is what the state says, answers follow from thoughts, and what the players write."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from ludus.envs.small.shapes import (
    BACKGROUND,
    COLOURS,
    KINDS,
    SIDE,
    Kind,
    Shapes,
    State,
    Thing,
    drawn,
    mended,
    misread,
    written,
)
from ludus.envs.world import World, mixed, play
from ludus.rewards.reflection import attempts, blocks, well_formed
from ludus.types import End, Image

WORLD = Shapes(train=90, test=60)
CELLS: tuple[Thing | None, ...] = (
    *(("red", "circle"), None, ("blue", "square")),
    *(("red", "square"), ("green", "triangle"), None),
    *(None, ("yellow", "circle"), ("red", "triangle")),
)
STATE = State(CELLS, ((0, 0, 6),) * 9, "count", ("red",))


def ends(state: State, said: str) -> End | None:
    return asyncio.run(WORLD.step(state, said)).end


@pytest.mark.parametrize(
    ("kind", "asked", "question", "answer"),
    [
        ("count", ("red",), "How many are red?", "3"),
        ("count", ("square",), "How many are squares?", "2"),
        ("compare", ("red", "blue"), "Are more red or blue?", "red"),
        ("compare", ("blue", "red"), "Are more blue or red?", "red"),
        ("compare", ("triangle", "circle"), "Are more triangles or circles?", "equal"),
        ("locate", ("green",), "Where is the green one?", "middle centre"),
        ("locate", ("yellow",), "Where is the yellow one?", "bottom centre"),
    ],
)
def test_questions(kind: Kind, asked: tuple[str, ...], question: str, answer: str) -> None:
    state = replace(STATE, kind=kind, asked=asked)
    assert (state.question, state.concluded(state.seen)) == (question, answer)
    assert ends(state, f"<answer>{answer}</answer>") is End.SOLVED
    assert ends(state, "<answer>seven</answer>") is End.FAILED


def test_what_is_seen() -> None:
    assert " ".join(STATE.seen) == "red - blue red green - - yellow red"
    shapes = replace(STATE, asked=("square", "circle"), kind="compare")
    assert " ".join(shapes.seen) == "circle - square square triangle - - circle triangle"
    triangle = replace(STATE, asked=("triangle",), kind="locate")
    assert triangle.question == "Where is the triangle?"
    assert triangle.concluded(("circle",) * 9) == "nowhere"


@pytest.mark.parametrize("index", range(12))
def test_the_picture_is_what_the_state_says(index: int) -> None:
    """Read back from the pixels: the colour of each cell's middle, and the shape from how much of its box is filled."""
    state = WORLD.start("test", index)
    pixels = np.array(PIL.Image.open(io.BytesIO(drawn(state.cells, state.strokes).data)))
    assert pixels.shape == (48, 48, 3)
    names = {rgb: name for name, rgb in COLOURS.items()}
    for cell, (thing, (right, down, half)) in enumerate(
        zip(state.cells, state.strokes, strict=True)
    ):
        x, y = (at * SIDE + SIDE // 2 for at in (cell % 3, cell // 3))
        colour = tuple(pixels[y + down, x + right].tolist())
        if thing is None:
            assert colour == BACKGROUND
            continue
        box = pixels[y + down - half : y + down + half + 1, x + right - half : x + right + half + 1]
        filled = (box == np.array(colour)).all(-1)
        share = filled.mean()
        shape = "square" if share == 1 else "circle" if share > 0.7 else "triangle"
        assert (names[colour], shape) == thing
        assert shape != "triangle" or filled[-1].sum() > 3 * filled[0].sum()


def test_the_observation_is_picture_and_question() -> None:
    task = WORLD.tasks("test")[0]
    step = asyncio.run(WORLD.reset(task, 0))
    picture, question = step.observation
    assert isinstance(picture, Image) and question == f" {step.state.question}"
    assert isinstance(WORLD, World) and task.answer == step.state.concluded(step.state.seen)


def test_no_arrangement_is_in_both_splits() -> None:
    seen = {split: {WORLD.start(split, i).cells for i in range(60)} for split in ("train", "test")}
    assert not seen["train"] & seen["test"] and len(seen["test"]) == 60
    assert [task.difficulty for task in WORLD.tasks()[:4]] == [0, 1, 2, 0]


@pytest.mark.parametrize("index", range(len(KINDS)))
def test_the_expert_finds_its_own_mistakes(index: int) -> None:
    wrong = 0
    states = [WORLD.start("train", i) for i in range(index, 90, 3)]
    for state in states:
        said = WORLD.expert(state)
        assert well_formed(said) and ends(state, said) is End.SOLVED
        first, second = (block.text.split() for block in blocks(said) if block.name == "think")
        assert tuple(second) == state.seen and len(first) == 9
        wrong += first != second
        answers = attempts(said)
        assert ("wrong" in said) == (first != second) == (answers[0] != answers[1])
    assert 0.1 < wrong / len(states) < 0.6


def test_the_beginner_wins_seldom_in_the_right_form() -> None:
    won = first = 0
    for seed in range(300):
        state = WORLD.start("test", seed % 60)
        said = WORLD.beginner(state, np.random.default_rng(seed))
        assert well_formed(said)
        answers = attempts(said)
        truth = state.concluded(state.seen)
        won, first = won + (answers[1] == truth), first + (answers[0] == truth)
    assert won < 120 and 30 < first < 180


def test_the_second_attempt_follows_from_the_first_and_the_reflection() -> None:
    rng = np.random.default_rng(0)
    seen = misread(STATE, [3, 8], rng)
    wrong = [cell for cell in range(9) if seen[cell] != STATE.seen[cell]]
    assert wrong == [3, 8] and set(seen) <= {*STATE.names}
    assert mended(STATE, seen, [3, 8], rng) == STATE.seen
    assert mended(STATE, seen, [], rng) == seen
    worse = mended(STATE, seen, [0, 3], rng)
    assert worse[0] != "red" and worse[3] == "red" and worse[8] == seen[8]
    said = written(STATE, seen, [8, 3], rng)
    assert said.endswith(
        "<reflection>4 9 wrong</reflection><think>red - blue red green - - yellow red</think>"
        "<answer>3</answer>"
    )
    assert said.startswith(f"<think>{' '.join(seen)}</think><answer>{seen.count('red')}</answer>")


def test_players_play() -> None:
    task = WORLD.tasks()[0]
    rng = np.random.default_rng(0)
    game = asyncio.run(play(WORLD, task, 0, mixed(WORLD, 1.0), rng, 1))
    assert (
        game.end is End.SOLVED and game.opening[-1].text == f" {WORLD.start('train', 0).question}"
    )
