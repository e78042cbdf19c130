"""Look-up chains: the tools by hand, and that the gold answer stands on one page and nowhere else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from ludus.envs.small.lookup import NAMES, SIGNS, Corpus, Lookup, Page, State
from ludus.envs.world import play
from ludus.rewards.overlap import token_f1
from ludus.types import End

CORPUS = Corpus(
    (
        Page("badan", "red fox", "defel", "figor", "8 0 1"),
        Page("defel", "wet owl", "figor", "badan", "4 7 2"),
        Page("figor", "old cat", "badan", "defel", "4 7 3"),
    )
)
START = State(CORPUS.pages[:2], ("boss",), CORPUS, ("code of boss of sign red fox",))
WORLD = Lookup(train=40, test=40)


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("search red fox", "found badan"),
        ("search boss badan", "found figor"),
        ("search badan", "found badan, defel, figor"),  # its own page, its friend's, its boss's
        ("search code 4 7", "found defel, figor"),
        ("search fox red", "found nothing"),
        ("search ed fox", "found nothing"),  # whole words
        ("read defel", "defel. sign wet owl. boss figor. friend badan. code 4 7 2."),
        ("read rome", "no page rome"),
        (
            "I see.\nAction:  read   figor.",
            "figor. sign old cat. boss badan. friend defel. code 4 7 3.",
        ),
        ("look", "write search, read or answer"),
        ("search", "write search, read or answer"),
    ],
)
def test_the_tools(action: str, told: str):
    step = asyncio.run(WORLD.step(START, action))
    assert (step.observation, step.reward, step.end) == (told, 0, None)
    assert step.state.seen == (*START.seen, told)


def test_three_pages_at_most_are_found():
    corpus = WORLD.start("train", 0).corpus
    assert corpus.search("sign").count(",") == 2


@pytest.mark.parametrize(
    ("answer", "plain", "graded"),
    [
        ("4 7 2", 1, 1),
        ("4 7 3", 0, 2 / 3),
        ("2 7 4", 0, 1),
        ("4", 0, 0.5),
        ("", 0, 0),
        ("4 7 2 2", 0, 6 / 7),
    ],
)
def test_what_an_answer_pays(answer: str, plain: float, graded: float):
    for world, pay in ((WORLD, plain), (replace(WORLD, graded=True), graded)):
        step = asyncio.run(world.step(START, f"answer {answer}"))
        assert step.reward == pytest.approx(pay)
        assert step.end is (End.SOLVED if answer == "4 7 2" else End.FAILED)


def test_the_gold_answer_occurs_on_the_last_page_of_the_chain_alone():
    for split in ("train", "test"):
        for task in WORLD.tasks(split):
            state = asyncio.run(WORLD.reset(task, 0)).state
            pages = state.corpus.pages
            assert len(pages) == 100 and len({page.code for page in pages}) == 100
            assert task.answer == state.gold == state.chain[-1].code
            holding = [page for page in pages if task.answer in str(page)]
            assert holding == [state.chain[-1]]
            assert task.answer not in state.question and task.answer not in task.prompt[0].text
            assert task.extras["other"] != task.answer
            assert sum(task.extras["other"] in str(page) for page in pages) == 1


def test_the_expert_sees_the_gold_answer_last():
    rng = np.random.default_rng(0)
    for task in WORLD.tasks("test"):
        player = lambda state, rng: WORLD.expert(state)  # noqa: E731
        game = asyncio.run(play(WORLD, task, 0, player, rng))
        shown = [str(step.observation) for _, step in game.turns]
        assert [task.answer in text for text in shown] == [False] * (len(shown) - 2) + [True, False]
        assert len(shown) == task.difficulty + 2
        # What the policy writes names the answer once, in its last action.
        assert [task.answer in action for action, _ in game.turns][:-1] == [False] * (
            len(shown) - 1
        )


def test_chains_have_the_lengths_asked_for_and_no_circles():
    lengths = [len(WORLD.start("train", index).chain) for index in range(40)]
    assert lengths == [2, 3] * 20
    for index in range(40):
        chain = WORLD.start("train", index).chain
        assert len(set(chain)) == len(chain)
        for page in WORLD.start("train", index).corpus.pages:
            assert page.name not in (page.boss, page.friend)


def test_the_names():
    assert len(set(NAMES)) == len(NAMES) == len(set(SIGNS)) == 100
    assert not {word for sign in SIGNS for word in sign.split()} & set(NAMES)


@pytest.mark.parametrize(
    "settings", [{"hops": (0, 2)}, {"hops": (3, 2)}, {"pages": 101}, {"pages": 5}]
)
def test_settings_that_make_no_world(settings: dict[str, object]):
    with pytest.raises(ValueError, match="give"):
        replace(WORLD, **settings)


@pytest.mark.parametrize(
    ("answer", "gold", "f1"),
    [
        ("Red fox", "red FOX", 1),
        ("the red fox", "red fox", 0.8),  # 2 * 2 / 5
        ("a a", "a", 2 / 3),  # a word counts as often as in both
        ("", "", 1),
        ("", "a", 0),
        ("b", "a", 0),
    ],
)
def test_token_f1(answer: str, gold: str, f1: float):
    assert token_f1(answer, gold) == pytest.approx(f1)
    assert token_f1(gold, answer) == pytest.approx(f1)
