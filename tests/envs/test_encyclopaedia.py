"""The encyclopaedia: that its questions are good ones, and that what is wrong with a bad one is found."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from ludus.data.questions import Question
from ludus.envs.corpus.deep_search import DeepSearch
from ludus.envs.corpus.encyclopaedia import (
    EMBLEMS,
    KINDS,
    LINKS,
    NAMES,
    Article,
    Counts,
    Edition,
    edition,
    problems,
    question,
)

BOOK = Edition(
    (
        Article("badan", "", "person", (("home", "dezan"), ("teacher", "figor")), "red fox"),
        Article("balas", "milas", "work", (("author", "figor"), ("scene", "dezan")), "4 7 2"),
        Article("dezan", "", "place", (("mayor", "badan"),), "wet owl"),
        Article("figor", "", "person", (("home", "dezan"), ("teacher", "badan")), "red owl"),
    )
)
GOOD = Question("q", "pet of author of milas", ("red owl",), 2, {"chain": ("balas", "figor")})


def test_articles_by_hand():
    assert str(BOOK.of["milas"]) == "balas also milas. work. author figor. scene dezan. year 4 7 2."
    assert [one.text for one in BOOK.passages][2] == "dezan. place. mayor badan. flag wet owl."
    assert BOOK.of["milas"] is BOOK.of["balas"]


def test_a_good_question_has_no_problems():
    assert problems(BOOK, GOOD) == []


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        (replace(GOOD, answers=("red fox",)), "stands in ['badan'], not in 'figor' alone"),
        (replace(GOOD, answers=("red",)), "stands in ['badan', 'figor'], not in 'figor' alone"),
        (replace(GOOD, answers=("4 7",)), "stands in ['balas']"),
        (replace(GOOD, answers=("ed owl",)), "stands in []"),  # whole words
        (replace(GOOD, answers=("red owl", "wet owl")), "2 answers"),
        (replace(GOOD, text="pet of author of figor"), "the texts lead to []"),
        (replace(GOOD, text="pet of author of milas red owl"), "the question says 'red owl'"),
        (replace(GOOD, hops=1), "no way over 1 different"),
        (
            Question(
                "q",
                "flag of home of teacher of badan",
                ("wet owl",),
                3,
                {"chain": ("badan", "figor", "dezan")},
            ),
            "'dezan' is named too early",  # badan lives there as well, so figor need not be read
        ),
        (
            Question(
                "q",
                "pet of teacher of teacher of figor",
                ("red owl",),
                3,
                {"chain": ("figor", "badan", "figor")},
            ),
            "no way over 3 different",
        ),
    ],
)
def test_what_is_wrong_with_a_question(asked: Question, wrong: str):
    assert any(wrong in said for said in problems(BOOK, asked)), problems(BOOK, asked)


def test_two_articles_with_one_name_are_found():
    also = replace(BOOK.articles[0], alias="milas")
    book = Edition((also, *BOOK.articles[1:]))
    assert "'milas' names 2 articles" in problems(book, GOOD)
    badan = Question("q", "pet of teacher of badan", ("red owl",), 2, {"chain": ("badan", "figor")})
    assert problems(BOOK, badan) == []
    book = Edition((*BOOK.articles[:3], replace(BOOK.articles[3], alias="badan")))
    assert any("red fox" in said and "lead to" in said for said in problems(book, badan))


@pytest.mark.parametrize("seed", range(5))
def test_an_edition_is_what_its_counts_say(seed: int):
    counts = Counts(person=20, place=6, work=9, aliases=0.5)
    book = edition(counts, np.random.default_rng(seed))
    for kind in KINDS:
        of_kind = [article for article in book.articles if article.kind == kind]
        assert len(of_kind) == getattr(counts, kind)
        assert sum(bool(article.alias) for article in of_kind) == counts.second(kind)
        for article in of_kind:
            assert {article.title, article.alias} - {""} <= set(NAMES[kind])
            assert [relation for relation, _ in article.links] == list(LINKS[kind])
            assert all(
                book.of[title].kind == LINKS[kind][relation] for relation, title in article.links
            )
            assert article.title not in {title for _, title in article.links}
    names = [name for a in book.articles for name in (a.title, a.alias) if name]
    facts = [article.fact for article in book.articles]
    assert len(set(names)) == len(names) and len(set(facts)) == len(facts)
    assert list(book.articles) == sorted(book.articles, key=lambda article: article.title)
    assert book == edition(counts, np.random.default_rng(seed))


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_the_answer_stands_where_it_should_and_nowhere_else(hops: int):
    """By a search of its own through all texts, not by `problems`."""
    rng = np.random.default_rng(hops)
    book = edition(Counts(), rng)
    made = [one for _ in range(60) if (one := question(book, hops, rng))]
    assert len(made) > 20
    for asked in made:
        chain = asked.extras["chain"]
        assert asked.hops == hops == len(set(chain)) and asked.text.count(" of ") == hops
        (gold,) = asked.answers
        holding = [a.title for a in book.articles if gold in str(a)]
        assert holding == [chain[-1]]
        start = asked.text.split(" of ")[-1]
        assert start == (book.of[chain[0]].alias or chain[0])
        # distractors: other articles answer the same kind of question, differently
        fact = asked.text.split(" of ")[0]
        others = [re.search(rf"{fact} ([^.]+)\.", str(a)) for a in book.articles]
        assert len({other[1] for other in others if other}) > 3


def test_hops_that_there_are_not():
    with pytest.raises(ValueError, match="give 1 to 4"):
        question(BOOK, 5, np.random.default_rng(0))


@pytest.mark.parametrize(
    "settings", [{"person": 3}, {"place": 41}, {"aliases": 1.5}, {"person": 40, "aliases": 1}]
)
def test_counts_that_make_no_encyclopaedia(settings: dict[str, float]):
    with pytest.raises(ValueError, match="give"):
        Counts(**{"aliases": 0.0, **settings})  # type: ignore[arg-type]


def test_names_and_emblems_are_different_words():
    names = [name for kind in KINDS for name in NAMES[kind]]
    assert len(set(names)) == len(names) == 140 and len(set(EMBLEMS)) == 100
    assert not {word for emblem in EMBLEMS for word in emblem.split()} & set(names)


def test_no_test_question_is_asked_in_training_in_any_edition():
    world = DeepSearch(train=200, test=100)
    train = {world.start("train", index).text for index in range(200)}
    test = {world.start("test", index).text for index in range(100)}
    assert not train & test
    hops = [world.start("test", index).hops for index in range(100)]
    assert [hops.count(number) for number in (1, 2, 3, 4)] == [25, 25, 25, 25]
    # an edition is asked about with all numbers of hops
    assert {world.start("train", index).hops for index in range(0, 200, 64)} == {1, 2, 3, 4}
    for index in range(50):
        made = world.start("test", index)
        assert problems(world.book(made.extras["edition"]), made) == []
