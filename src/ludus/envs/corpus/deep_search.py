"""Deep search in generated encyclopaedias: a small world with players, to learn to search before the web is asked.

    pet of author of milas      the question
    search milas                found balas
    read balas                  balas also milas. work. author figor. scene hutor. year 4 7 2.
    read figor                  figor. person. home kalum. teacher kadan. pet old cat.
    answer old cat

Tasks take their encyclopaedia from `editions` different ones, so what one article says cannot be remembered, and a
question of the test split is asked in no training task, whatever the edition.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ludus.data.questions import Question
from ludus.envs.corpus.encyclopaedia import (
    ADJECTIVES,
    ANIMALS,
    DIGITS,
    EMBLEMS,
    FACTS,
    KINDS,
    LINKS,
    MOST_HOPS,
    NAMES,
    Counts,
    Edition,
    edition,
    question,
)
from ludus.envs.corpus.index import BM25
from ludus.envs.corpus.search import AGAIN, NOTHING, SPENT, Desk, Shelf, State
from ludus.envs.world import Split, draw_for, listed, one_of, place_of
from ludus.types import Key, Step, Task

ALL_NAMES = tuple(name for kind in KINDS for name in NAMES[kind])


@dataclass(frozen=True)
class DeepSearch:
    """A question of h hops takes h + 2 turns in the plain form (a search, h reads, an answer), at most h + 1 in tags.

    hops      fewest and most; tasks take the numbers in turn, and their difficulty is their hops
    counts    articles of an encyclopaedia
    editions  different encyclopaedias
    """

    hops: tuple[int, int] = (1, MOST_HOPS)
    desk: Desk = field(default_factory=lambda: Desk(form="plain"))
    counts: Counts = field(default_factory=Counts)
    editions: int = 64
    train: int = 1024
    test: int = 128
    seed: int = 0
    name: str = "deep_search"

    def __post_init__(self) -> None:
        low, high = self.hops
        if not 1 <= low <= high <= MOST_HOPS:
            raise ValueError(f"hops={self.hops}; give (least, most) from 1 to {MOST_HOPS}")
        if self.editions < 1:
            raise ValueError(f"editions={self.editions}; give 1 or more")

    def book(self, number: int) -> Edition:
        return library(self.counts, self.seed, number)[0]

    def start(self, split: Split, index: int) -> Question:
        """The question of a task; the number of its edition is in its `extras`."""
        low, high = self.hops
        number = index % self.editions
        # editions and hops go round together where one divides the other, so hops change once more each round
        hops = low + (index + index // self.editions) % (high - low + 1)
        book = self.book(number)
        key = Key(self.seed, ("deep search", split, index, hops))
        made = draw_for(split, key, lambda rng: question(book, hops, rng), lambda one: one.text)
        return Question(
            made.id, made.text, made.answers, made.hops, {**made.extras, "edition": number}
        )

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        relations = [relation for kind in KINDS for relation in LINKS[kind]]
        told = (AGAIN, SPENT, NOTHING, self.desk.help, self.desk.prompt.text)
        tags = () if self.desk.form == "plain" else ("think", "information", "Doc Title")
        facts = (*FACTS.values(), *ADJECTIVES, *ANIMALS, "also of no page")
        return listed(*ALL_NAMES, *relations, *KINDS, *facts, *told, *tags)

    def expert(self, state: State) -> str:
        """Follows the question through what was told so far."""
        fact, *relations, name = state.seen[0].split(" of ")
        article = _article(name, state.seen[1:])
        if article is None:
            found = _found(state.seen[-1])
            if self.desk.form == "plain" and found:
                return f"read {name if name in found else found[0]}"
            return self._say("search", name)
        for relation in (*reversed(relations), fact):
            said = re.search(rf" {relation} ([^.]+)\.", article)
            if said is None:  # desk.cut took the rest of the article away
                break
            name = said[1]
            if relation == fact:
                return self._say("answer", name)
            article = _article(name, state.seen[1:])
            if article is None:
                return self._say("read" if self.desk.form == "plain" else "search", name)
        return self._say("search", state.seen[0])

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Looks for or reads anything that was named, and answers with something that it has read, or with anything."""
        told = " ".join(state.seen)
        names = sorted(set(re.findall(r"\w+", told)) & set(ALL_NAMES))
        facts = re.findall(r" (?:pet|flag|year) ([^.<]+)\.", told)
        digits = " ".join(str(digit) for digit in rng.integers(10, size=DIGITS))
        choices = [
            ("search", state.seen[0].rpartition(" of ")[2]),
            ("answer", digits if state.seen[0].startswith("year") else one_of(rng, EMBLEMS)),
            *(("answer", said) for said in facts),
            *(("read", name) for name in names if self.desk.pages),
            *(("search", name) for name in names),
        ]
        return self._say(*one_of(rng, choices))

    def _say(self, verb: str, what: str) -> str:
        return f"{verb} {what}" if self.desk.form == "plain" else f"<{verb}>{what}</{verb}>"

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        made = []
        for index in range(self.train if split == "train" else self.test):
            asked = self.start(split, index)
            made.append(
                Task(
                    id=f"{self.name}-{split}-{index}",
                    prompt=(self.desk.prompt,),
                    answer=asked.answers[0],
                    env=self.name,
                    difficulty=asked.hops,
                    extras={"split": split, "index": index},
                )
            )
        return made

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes encyclopaedia and question."""
        place = place_of(self, task, {"train": self.train, "test": self.test})
        return self.desk.begin(self.start(*place))

    async def step(self, state: State, action: str) -> Step:
        shelf = library(self.counts, self.seed, state.question.extras["edition"])[1]
        return self.desk.step(state, action, shelf)

    async def fork(self, state: State) -> State:
        return state


@lru_cache(maxsize=256)
def library(counts: Counts, seed: int, number: int) -> tuple[Edition, Shelf]:
    """The edition of a number, with its index; kept, because every task on it asks for it."""
    book = edition(counts, Key(seed, ("encyclopaedia", number)).generator())
    return book, Shelf(BM25.over(book.passages))


def _article(name: str, told: Sequence[str]) -> str | None:
    """The text of an article by one of its names, if it was shown."""
    own = re.compile(
        rf"(?:^|[ )])((?:\w+ also )?{name}(?: also \w+)?\. (?:{'|'.join(KINDS)})\.[^<(]*)"
    )
    return next((found[1] for text in told if (found := own.search(text))), None)


def _found(told: str) -> list[str]:
    """The titles that a search gave, in the plain form; none where `told` is something else."""
    lists = told.startswith("found ") and told != NOTHING
    return told.removeprefix("found ").split(", ") if lists else []
