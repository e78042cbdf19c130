"""A generated encyclopaedia: short articles about people, places and works, and questions of one to four hops.

    question   flag of home of author of milas
    balas      balas also milas. work. author figor. scene hutor. year 4 7 2.
    figor      figor. person. home kalum. teacher kadan. pet old cat.
    kalum      kalum. place. mayor rufel. flag red fox.

A question asks for something that one article alone says (a pet, a flag, a year), so the answer stands where it should
and nowhere else; `problems` looks through the whole corpus for whatever else it could be. Every article has links to
others of the right kind, pets and flags are alike, and all years are, so a wrong turn gives an answer that looks right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ludus.data.questions import Passage, Question
from ludus.envs.world import one_of

Kind = Literal["person", "place", "work"]
KINDS: tuple[Kind, ...] = ("person", "place", "work")

ADJECTIVES = tuple("red wet old big shy hot sad odd raw dry".split())
ANIMALS = tuple("fox owl cat cow bat hen ant bee elk emu".split())
# as many as there are names of people and places, so no two of an encyclopaedia have the same
EMBLEMS = tuple(f"{adjective} {animal}" for adjective in ADJECTIVES for animal in ANIMALS)
DIGITS = 3

_FIRST = "ba de fi go hu ka le mi no ru".split()
_LAST: Mapping[Kind, Sequence[str]] = {
    "person": "dan fel gor kis min pot".split(),
    "place": "lum zan tor ven".split(),
    "work": "las rim sol bix".split(),
}
NAMES: Mapping[Kind, tuple[str, ...]] = {
    kind: tuple(first + last for first in _FIRST for last in _LAST[kind]) for kind in KINDS
}

LINKS: Mapping[Kind, Mapping[str, Kind]] = {
    "person": {"home": "place", "teacher": "person"},
    "place": {"mayor": "person"},
    "work": {"author": "person", "scene": "place"},
}
"""Kind of article -> what its links are called -> the kind of article that they lead to."""
FACTS: Mapping[Kind, str] = {"person": "pet", "place": "flag", "work": "year"}
MOST_HOPS = 4


@dataclass(frozen=True)
class Article:
    """`links` are (relation, title); `fact` is what no other article says; `alias` is a second name, or empty."""

    title: str
    alias: str
    kind: Kind
    links: tuple[tuple[str, str], ...]
    fact: str

    @property
    def sentences(self) -> tuple[str, ...]:
        """Name, kind, links and fact, each with its full stop."""
        name = f"{self.title} also {self.alias}" if self.alias else self.title
        links = (f"{relation} {title}" for relation, title in self.links)
        said = (name, self.kind, *links, f"{FACTS[self.kind]} {self.fact}")
        return tuple(f"{one}." for one in said)

    def __str__(self) -> str:
        return " ".join(self.sentences)


@dataclass(frozen=True)
class Edition:
    """One encyclopaedia; articles are sorted by title."""

    articles: tuple[Article, ...]

    @cached_property
    def of(self) -> Mapping[str, Article]:
        """Title, or alias, to article."""
        names = {a.title: a for a in self.articles}
        return {**names, **{a.alias: a for a in self.articles if a.alias}}

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """The title stands in the text too, so an article says its name twice and its links once."""
        return tuple(Passage(str(i), a.title, str(a)) for i, a in enumerate(self.articles))


@dataclass(frozen=True)
class Counts:
    """Articles of each kind, and the share of them that have a second name."""

    person: int = 16
    place: int = 8
    work: int = 8
    aliases: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.aliases <= 1:
            raise ValueError(f"aliases={self.aliases}; give a share from 0 to 1")
        for kind in KINDS:
            count, names = getattr(self, kind), len(NAMES[kind])
            if count < 4 or count + self.second(kind) > names:
                raise ValueError(
                    f"{count} articles of kind {kind} with {self.second(kind)} second names; give 4 or more "
                    f"articles, and at most {names} names together"
                )

    def second(self, kind: Kind) -> int:
        return round(self.aliases * getattr(self, kind))


# ---------------------------------------------------------------------------------------------- making


def edition(counts: Counts, rng: np.random.Generator) -> Edition:
    """An encyclopaedia with every link drawn at random; nobody teaches themselves."""
    titles: dict[Kind, list[str]] = {}
    second: dict[str, str] = {}
    for kind in KINDS:
        count = getattr(counts, kind)
        drawn = [NAMES[kind][int(i)] for i in rng.permutation(len(NAMES[kind]))]
        titles[kind] = drawn[:count]
        second |= dict(zip(titles[kind], drawn[count : count + counts.second(kind)], strict=False))
    emblems = [EMBLEMS[int(i)] for i in rng.permutation(len(EMBLEMS))]
    years = [" ".join(f"{int(i):0{DIGITS}d}") for i in rng.permutation(10**DIGITS)]
    articles = [
        Article(
            title,
            second.get(title, ""),
            kind,
            tuple(
                (relation, one_of(rng, [name for name in titles[to] if name != title]))
                for relation, to in LINKS[kind].items()
            ),
            years.pop() if FACTS[kind] == "year" else emblems.pop(),
        )
        for kind in KINDS
        for title in titles[kind]
    ]
    return Edition(tuple(sorted(articles, key=lambda article: article.title)))


def question(book: Edition, hops: int, rng: np.random.Generator) -> Question | None:
    """A question that needs `hops` articles; None where the way through the links gives one with `problems`.

    The first article is named by its second name where it has one. `extras["chain"]` are the titles on the way.
    """
    if not 1 <= hops <= MOST_HOPS:
        raise ValueError(f"hops={hops}; give 1 to {MOST_HOPS}")
    article = one_of(rng, book.articles)
    start, chain, relations = article.alias or article.title, [article.title], list[str]()
    for _ in range(hops - 1):
        relation, title = one_of(rng, article.links)
        relations.append(relation)
        chain.append(title)
        article = book.of[title]
    text = " of ".join((FACTS[article.kind], *reversed(relations), start))
    made = Question(text, text, (article.fact,), hops, {"chain": tuple(chain)})
    return None if problems(book, made) else made


# ---------------------------------------------------------------------------------------------- checking


def problems(book: Edition, asked: Question) -> list[str]:
    """All that is wrong with a question, from the texts of all articles alone; empty where it is a good one.

    It has one answer, which follows from the texts; the answer stands in one article, that of the last hop, and not in
    the question; the way names no article before its turn, neither in the question nor in an article, so none of the
    hops can be left out; and every name belongs to one article.
    """
    texts = {one.title: f" {_plain(one.text)} " for one in book.passages}
    wrong = [
        f"{name!r} names {len(owners)} articles"
        for name, owners in _owners(book).items()
        if len(owners) != 1
    ]
    if len(asked.answers) != 1:
        return [*wrong, f"{len(asked.answers)} answers"]
    chain, gold = tuple(asked.extras["chain"]), asked.answers[0]
    if len(chain) != asked.hops or len(set(chain)) != len(chain):
        wrong.append(f"the way {chain} is no way over {asked.hops} different articles")
    found = [title for title, text in texts.items() if f" {gold} " in text]
    if found != [chain[-1]]:
        wrong.append(f"{gold!r} stands in {found}, not in {chain[-1]!r} alone")
    if f" {gold} " in f" {asked.text} ":
        wrong.append(f"the question says {gold!r}")
    followed = _follow(asked.text, texts)
    if followed != {(chain, gold)}:
        wrong.append(f"the texts lead to {sorted(followed)}, not to {gold!r} by {chain}")
    for place, title in enumerate(chain):
        names = {title, book.of[title].alias} - {""}
        earlier = [asked.text] if place else []
        earlier += [texts[chain[before]] for before in range(place - 1)]
        wrong += [
            f"{name!r} is named too early"
            for name in sorted(names)
            if any(f" {name} " in f" {text} " for text in earlier)
        ]
    return wrong


def _owners(book: Edition) -> dict[str, set[str]]:
    owners: dict[str, set[str]] = {}
    for article in book.articles:
        for name in {article.title, article.alias} - {""}:
            owners.setdefault(name, set()).add(article.title)
    return owners


def _follow(text: str, texts: Mapping[str, str]) -> set[tuple[tuple[str, ...], str]]:
    """Every (way, answer) of a question, read off the words of the articles: nothing is known but titles and texts."""
    fact, *relations, start = text.split(" of ")
    own = re.compile(rf" (?:\S+ also )?{re.escape(start)}(?: also \S+)? (?:{'|'.join(KINDS)}) ")
    ways = {(title,) for title, said in texts.items() if own.match(said)}
    for relation in reversed(relations):
        ways = {
            (*way, next_)
            for way in ways
            for next_ in re.findall(rf" {relation} (\S+)", texts[way[-1]])
            if next_ in texts
        }
    return {
        (way, answer.strip())
        for way in ways
        for answer in re.findall(rf" {fact} (.+)", texts[way[-1]])
    }


def _plain(text: str) -> str:
    return " ".join(text.replace(".", " ").split())
