"""The memory task: pages of forty tokens, one fact each, and an answer that stands nowhere else."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import numpy as np
import pytest

from ludus.envs.small.memory import COLOURS, NAMES, Memory
from ludus.envs.world import Game, play
from ludus.types import End

WORLD = Memory(train=64, test=32)
TOKEN = re.compile(r" ?[A-Za-z]+|[.?]")


def played(world: Memory, index: int) -> Game:
    rng = np.random.default_rng(0)
    player = lambda state, rng: world.expert(state)  # noqa: E731
    return asyncio.run(play(world, world.tasks("test")[index], 0, player, rng))


@pytest.mark.parametrize("turns", [12, 24])
def test_as_many_pages_of_forty_tokens_as_turns_then_the_question(turns: int):
    world = replace(WORLD, turns=turns)
    game = played(world, 0)
    texts = [game.opening[-1].text, *(str(step.observation) for _, step in game.turns)]
    pages, question, verdict = texts[:turns], texts[turns], texts[turns + 1]
    assert all(len(TOKEN.findall(page)) == 40 for page in pages)
    assert re.fullmatch(r"which keys does [A-Z][a-z]+ keep\?", question)
    assert (verdict, game.end, game.reward) == ("right", End.SOLVED, 1.0)
    assert [action for action, _ in game.turns[:turns]] == ["ok"] * turns


def test_each_page_tells_one_fact_and_each_fact_is_told_once():
    for index in range(20):
        state = WORLD.start("train", index)
        assert len({name for name, _ in state.facts}) == 12
        for (name, colour), page in zip(state.facts, state.pages, strict=True):
            assert page.count("keeps") == page.count("keys") == 1
            assert f"{name} keeps {colour} keys." in page
            assert page.count(".") == 8
        assert " ".join(state.pages).count(f"{state.facts[state.asked][0]} keeps") == 1


def test_any_page_may_be_asked_for_and_any_colour_be_right():
    states = [Memory().start("train", index) for index in range(600)]
    asked = np.bincount([state.asked for state in states], minlength=12)
    colours = [state.facts[state.asked][1] for state in states]
    assert asked.min() > 25 and min(colours.count(colour) for colour in COLOURS) > 45
    # So the last four pages, which is what a context of 200 tokens holds, answer a third, and guessing 1/8 of the rest.
    assert np.mean([state.asked >= 8 for state in states]) == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("{}", True),
        (" {}.\n", True),
        ("I recall.\nAction: {}", True),
        ("{} keys", False),
        ("{} {}", False),
        ("", False),
    ],
)
def test_what_counts_as_the_answer(text: str, right: bool):
    state = WORLD.start("test", 0)
    state = replace(state, shown=len(state.pages) + 1)
    colour = state.facts[state.asked][1]
    step = asyncio.run(WORLD.step(state, text.format(colour, colour)))
    assert (step.end is End.SOLVED) == right == bool(step.reward)


def test_an_answer_to_a_page_is_not_an_answer():
    state = WORLD.start("test", 0)
    step = asyncio.run(WORLD.step(state, state.facts[state.asked][1]))
    assert step.end is None and step.observation == state.pages[1]


@pytest.mark.parametrize("settings", [{"turns": 0}, {"turns": len(NAMES) + 1}, {"sentences": 0}])
def test_settings_that_make_no_world(settings: dict[str, int]):
    with pytest.raises(ValueError, match="give"):
        replace(WORLD, **settings)
