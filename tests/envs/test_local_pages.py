"""Pages of several screens: opening, turning, going back, notes, and budgets that hold to the word."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ludus.data.questions import Passage, Question
from ludus.envs.corpus.deep_search import DeepSearch
from ludus.envs.corpus.index import BM25
from ludus.envs.corpus.local_pages import LONGEST_NOTE, MOST_NOTES, LocalPages, Reading, screens
from ludus.envs.corpus.search import Search, Shelf
from ludus.envs.world import mixed, play
from ludus.types import End, Step

INDEX = BM25.over(
    [
        Passage("0", "Emma", "It is a novel. It was written by [Jane Austen]. It is long."),
        Passage("1", "Jane Austen", "She was born in Steventon. She wrote [Emma]."),
    ]
)
SHELF = Shelf(INDEX)
ASKED = Question("q", "Where was the author of Emma born?", ("Steventon",), 2)
RULES = Reading(form="plain", screen=32)


def walk(rules: Reading, messages: Sequence[str]) -> list[Step]:
    steps = [rules.begin(ASKED)]
    for message in messages:
        steps.append(rules.step(steps[-1].state, message, SHELF))
    return steps


def told(rules: Reading, messages: Sequence[str]) -> list[str]:
    return [str(step.observation) for step in walk(rules, messages)[1:]]


def test_a_way_through_the_pages():
    actions = [
        *("next", "back", "search Emma novel", "open emma", "next", "next", "next"),
        *("open Jane Austen", "next", "back", "back", "open Rome"),
    ]
    assert told(RULES, actions) == [
        "no page open",
        "no page before",
        "found Emma, Jane Austen",
        "emma 1 of 3: It is a novel.",
        "emma 2 of 3: It was written by [Jane Austen].",
        "emma 3 of 3: It is long.",
        "no more",
        "Jane Austen 1 of 2: She was born in Steventon.",
        "Jane Austen 2 of 2: She wrote [Emma].",
        "emma 3 of 3: It is long.",  # at the screen that was left
        "no page before",
        "no page Rome",
    ]


def test_tags_wrap_what_is_shown():
    assert told(Reading(), ["<open>Emma</open>", "<next></next>", "<note>a</note>", "next"]) == [
        "<information>Emma 1 of 1: It is a novel. It was written by [Jane Austen]. It is long.</information>",
        "no more",
        "noted",
        "Write one action:\n<search>words</search>\n<open>title</open>\n<next></next>\n<back></back>\n"
        "<note>text</note>\n<notes></notes>\n<answer>answer</answer>",
    ]


def test_a_title_with_a_full_stop_behind_it_can_be_opened():
    shelf = Shelf(
        BM25.over([Passage("0", "Apple Inc.", "It makes computers. It is in Cupertino.")])
    )
    rules = Reading(form="plain", screen=20)
    step = rules.step(rules.begin(ASKED).state, "open Apple Inc.", shelf)
    assert step.observation == "Apple Inc 1 of 2: It makes computers."
    step = rules.step(step.state, "next", shelf)
    assert step.observation == "Apple Inc 2 of 2: It is in Cupertino."


def test_notes_are_kept_and_bounded():
    assert told(RULES, ["notes", "note Łódź 🙂", "note b", "notes", "note"]) == [
        "no notes",
        "noted",
        "noted",
        "1 Łódź 🙂, 2 b",
        "write search, open, next, back, note, notes or answer",
    ]
    last = walk(RULES, ["note " + "a" * 5_000] * (MOST_NOTES + 1))[-1]
    assert last.observation == "no more notes" and len(last.state.notes) == MOST_NOTES
    assert {len(note) for note in last.state.notes} == {LONGEST_NOTE}


def test_the_budget_of_words_is_kept_to_the_word():
    rules = replace(RULES, words=12)
    steps = walk(rules, ["open Emma", "open Jane Austen", "next", "note x", "answer Steventon"])
    assert [str(step.observation) for step in steps[1:]] == [
        "Emma 1 of 3: It is a novel.",  # 8 words
        "Jane Austen 1 of",  # 4 of 10
        "no more pages, write answer",
        "noted",
        "right",
    ]
    assert [step.state.words for step in steps] == [0, 8, 12, 12, 12, 12]
    assert steps[-1].end is End.SOLVED
    assert told(replace(RULES, words=0), ["search Emma"]) == ["no more pages, write answer"]


def test_the_budget_of_visits_counts_pages_and_not_screens():
    rules = replace(RULES, visits=1)
    steps = walk(rules, ["open Rome", "open Emma", "next", "open Jane Austen", "search Emma"])
    assert [step.state.visits for step in steps] == [0, 0, 1, 1, 1, 1]
    assert steps[4].observation == "no more pages, write answer"
    assert str(steps[5].observation).startswith("found")


@pytest.mark.parametrize(
    ("answer", "graded", "reward"),
    [("Steventon", False, 1), ("in Steventon", False, 0), ("in Steventon", True, 2 / 3)],
)
def test_what_an_answer_pays(answer: str, graded: bool, reward: float):
    step = walk(replace(RULES, graded=graded), [f"answer {answer}"])[-1]
    assert step.reward == pytest.approx(reward)
    assert step.end is (End.SOLVED if answer == "Steventon" else End.FAILED)
    with pytest.raises(ValueError, match="call reset"):
        RULES.step(step.state, "next", SHELF)


@pytest.mark.parametrize(
    ("text", "size", "cut"),
    [
        ("", 5, [""]),
        ("  \n ", 5, [""]),
        ("A b. C d.", 9, ["A b. C d."]),
        ("A b. C d.", 8, ["A b.", "C d."]),
        ("A b.\nC d.", 100, ["A b. C d."]),
        ("aa bb cc. D.", 5, ["aa bb", "cc.", "D."]),
        ("abcdefgh i", 3, ["abc", "def", "gh", "i"]),
        ("東京" * 3, 4, ["東京東京", "東京"]),
    ],
)
def test_screens(text: str, size: int, cut: list[str]):
    assert screens(text, size) == cut
    assert all(len(one) <= size for one in cut)
    assert "".join("".join(cut).split()) == "".join(text.split())


def test_a_page_has_no_more_screens_than_allowed():
    assert told(replace(RULES, screens=2), ["open Emma", "next", "next"])[1:] == [
        "Emma 2 of 2: It was written by [Jane Austen].",
        "no more",
    ]


@pytest.mark.parametrize(
    "settings", [{"form": "xml"}, {"screen": 0}, {"screens": 0}, {"words": -1}, {"visits": -1}]
)
def test_rules_that_make_no_game(settings: dict[str, object]):
    with pytest.raises(ValueError, match="give"):
        Reading(**settings)  # type: ignore[arg-type]


def test_the_rules_serve_any_index_and_questions():
    env = Search(INDEX, [], [ASKED], rules=Reading(), name="pages")
    (task,) = env.tasks("test")
    assert "<next></next>" in task.prompt[0].text
    step = asyncio.run(env.reset(task, 0))
    step = asyncio.run(env.step(step.state, "<answer>Steventon</answer>"))
    assert step.end is End.SOLVED


def test_smaller_screens_make_a_longer_way():
    turns = {}
    for size in (30, 200):
        world = LocalPages(DeepSearch(hops=(3, 3), train=1, test=10))
        world = replace(world, reading=replace(world.reading, screen=size))
        games = [
            asyncio.run(play(world, task, 0, mixed(world, 1.0), np.random.default_rng(0)))
            for task in world.tasks("test")
        ]
        assert all(game.end is End.SOLVED for game in games)
        turns[size] = sum(len(game.turns) for game in games) / len(games)
    assert turns[200] == 5 and turns[30] > 7


def test_a_spent_budget_fails_honestly():
    world = LocalPages(DeepSearch(hops=(4, 4), train=1, test=5))
    world = replace(world, reading=replace(world.reading, words=10))
    for task in world.tasks("test"):
        game = asyncio.run(play(world, task, 0, mixed(world, 1.0), np.random.default_rng(0)))
        assert game.end is End.FAILED and game.reward == 0
    with pytest.raises(ValueError, match="plain form"):
        LocalPages(reading=Reading())
