"""The fork grammar: what it accepts, what it pays, and the success that its texts start a base at."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from ludus.envs.small.forks import FILLERS, FORKS, Forks, State
from ludus.types import Key

WORLD = Forks()  # 3 forks x 4 fillers, forks 0 and 1 needed, 4 values


def test_an_answer_word_for_word():
    assert WORLD.response([1, 0, 2]) == (
        "east moon star rain sun north sun moon star rain south star rain sun moon"
    )
    assert WORLD.length == 15
    assert WORLD.read(WORLD.response([1, 0, 2])) == (1, 0, 2)


@pytest.mark.parametrize("place", range(15))
def test_one_wrong_word_breaks_the_grammar_or_the_fork(place: int):
    state = State(0, 1)
    words = WORLD.expert(state).split()
    for other in (*FORKS[:4], *FILLERS[:4], "hail", ""):
        if other != words[place]:
            changed = " ".join([*words[:place], other, *words[place + 1 :]])
            assert not WORLD.correct(state, changed)


@pytest.mark.parametrize("text", ["", "north", "north sun moon star rain", "a b c"])
def test_other_lengths_are_no_answers(text: str):
    assert WORLD.read(text) is None
    assert WORLD.read(WORLD.response([0, 0, 0, 0])) is None


def test_a_fork_follows_one_word_of_the_prompt_by_a_permutation():
    for fork in range(3):
        told = {
            (a, b): WORLD.rights(fork, State(a, b))
            for a, b in itertools.product(range(4), repeat=2)
        }
        for a, b in told:
            assert told[a, b] == (told[a, 0] if fork % 2 == 0 else told[0, b])
        assert len(set(told.values())) == 4


def test_only_needed_forks_count():
    state = State(2, 3)
    right = [WORLD.rights(fork, state)[0] for fork in range(3)]
    for last in range(4):
        assert WORLD.correct(state, WORLD.response([*right[:2], last]))
    for fork in (0, 1):
        wrong = list(right)
        wrong[fork] = (wrong[fork] + 1) % 4
        assert not WORLD.correct(state, WORLD.response(wrong))


@pytest.mark.parametrize(
    ("world", "success"),
    [
        (WORLD, 1 / 16),  # measured by the cards at 0.064
        (Forks(6, 1, tuple(range(6))), 1 / 4096),
        (Forks(8, 1, tuple(range(8)), values=1), 1 / 65_536),
        (Forks(3, 2, right=2), 1 / 4),
    ],
)
def test_start_success(world: Forks, success: float):
    assert world.start_success() == pytest.approx(success)
    # By counting: of all answers in the grammar, this share is right for one prompt.
    if world.forks < 8:
        state = State(0, world.values - 1)
        grammar = itertools.product(range(world.choices), repeat=world.forks)
        right = [world.correct(state, world.response(chosen)) for chosen in grammar]
        assert np.mean(right) == pytest.approx(success)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_texts_for_a_base_are_in_the_grammar_and_right_as_often_as_said(share: float):
    texts = list(itertools.islice(WORLD.texts(Key(1), share), 3000))
    prompts = {WORLD.prompt(State(a, b)): State(a, b) for a, b in WORLD.prompts()}
    assert {prompt for prompt, _ in texts} == set(prompts)
    assert all(WORLD.read(answer) is not None for _, answer in texts)
    right = np.mean([WORLD.correct(prompts[prompt], answer) for prompt, answer in texts])
    # 30 % gold forks: (0.3 + 0.7 / 4)^2 = 0.226, the start of the cards that say about 0.2
    assert right == pytest.approx(WORLD.start_success(share), abs=0.02)
    forks = [choice for _, answer in texts for choice in WORLD.read(answer) or ()]
    if share == 0:
        assert np.bincount(forks, minlength=4) / len(forks) == pytest.approx([0.25] * 4, abs=0.02)


def test_a_needle_guide_of_known_forks():
    needle = Forks(8, 1, tuple(range(8)), values=1)
    # A guide that knows 70 % of its forks is right with 0.7 + 0.3 / 4 = 0.775 per fork, 0.13 in all.
    assert needle.start_success(0.7) == pytest.approx(0.775**8)
    assert needle.start_success(0.7) == pytest.approx(0.13, abs=0.001)


def test_wrong_answers_are_in_the_grammar():
    rng = np.random.default_rng(0)
    for _ in range(200):
        state = State(int(rng.integers(4)), int(rng.integers(4)))
        answer = WORLD.wrong(state, rng)
        assert WORLD.read(answer) is not None and not WORLD.correct(state, answer)
    with pytest.raises(ValueError, match="right < choices"):
        Forks(right=4).wrong(State(0, 0), rng)


def test_held_out_pairs_leave_every_word_in_training():
    world = Forks(held_out=1)
    train, test = world.prompts("train"), world.prompts("test")
    assert len(train) == 12 and len(test) == 4 and not set(train) & set(test)
    for place in (0, 1):
        assert {pair[place] for pair in train} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "settings",
    [
        {"values": 5},
        {"forks": 0},
        {"fill": -1},
        {"right": 5},
        {"held_out": 4},
        {"needed": (3,)},
        {"needed": (0, 0)},
        {"choices": 9},
    ],
)
def test_settings_that_make_no_world(settings: dict[str, object]):
    with pytest.raises(ValueError, match="give"):
        replace(WORLD, **settings)
