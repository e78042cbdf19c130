"""Look-up chains: a question that only two or three pages of a small corpus answer, one after the other.

    question   code of boss of sign red fox
    search red fox          found badel
    read badel              badel. sign red fox. boss figor. friend hulen. code 8 0 1.
    read figor              figor. sign wet owl. boss minan. friend badel. code 4 7 2.
    answer 4 7 2

Every task has a corpus of its own, so nothing can be remembered from one to the next. A code stands on one page only,
so the gold answer appears in the last page of the chain, if at all: what a policy's own probability of it gains in a
turn is what it has found out (IGPO, arXiv:2510.14967).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ludus.envs.world import Split, action_of, draw_for, listed, one_of, place_of, refuse_if_over
from ludus.rewards.overlap import token_f1
from ludus.types import End, Key, Message, Step, Task

ADJECTIVES = tuple("red wet old big shy hot sad odd raw dry".split())
ANIMALS = tuple("fox owl cat cow bat hen ant bee elk emu".split())
SIGNS = tuple(f"{adjective} {animal}" for adjective in ADJECTIVES for animal in ANIMALS)
NAMES = tuple(
    first + last
    for first in "ba de fi go hu ka le mi no ru".split()
    for last in "dan fel gor hul kis lam min pot rus ven".split()
)
RELATIONS = ("boss", "friend")
DIGITS = 3
INSTRUCTION = Message(
    "system",
    "Answer the question. Write one action: search WORDS (finds pages that say them), read NAME (shows a page) or "
    "answer CODE.",
)
HELP = "write search, read or answer"
FOUND_AT_MOST = 3


@dataclass(frozen=True)
class Page:
    name: str
    sign: str
    boss: str
    friend: str
    code: str

    def __str__(self) -> str:
        return f"{self.name}. sign {self.sign}. boss {self.boss}. friend {self.friend}. code {self.code}."


@dataclass(frozen=True)
class Corpus:
    pages: tuple[Page, ...]  # sorted by name

    def read(self, name: str) -> str:
        return next((str(page) for page in self.pages if page.name == name), f"no page {name}")

    def search(self, words: str) -> str:
        """The first three names, in the alphabet's order, of pages that say `words` in this order."""
        wanted = f" {words} "
        hits = [page.name for page in self.pages if wanted in f" {str(page).replace('.', '')} "]
        return "found " + (", ".join(hits[:FOUND_AT_MOST]) or "nothing")


@dataclass(frozen=True)
class State:
    """`chain` are the pages that lead to the answer; `seen` is what the player was told, the question first."""

    chain: tuple[Page, ...]
    relations: tuple[str, ...]
    corpus: Corpus = field(repr=False)
    seen: tuple[str, ...] = ()
    over: bool = False

    @property
    def question(self) -> str:
        return " of ".join(("code", *reversed(self.relations), f"sign {self.chain[0].sign}"))

    @property
    def gold(self) -> str:
        return self.chain[-1].code


@dataclass(frozen=True)
class Lookup:
    """A chain of two pages takes four turns (search, read, read, answer), one of three takes five.

    hops    least and most pages that must be read; tasks take the lengths in turn
    pages   of each corpus
    graded  pay the token F1 of the answer, as IGPO does, instead of 1 for the exact code; solved is the exact code
    """

    hops: tuple[int, int] = (2, 3)
    pages: int = 100
    graded: bool = False
    train: int = 1024
    test: int = 128
    seed: int = 0
    name: str = "lookup"

    def __post_init__(self) -> None:
        low, high = self.hops
        if not 1 <= low <= high <= 6:
            raise ValueError(f"hops={self.hops}; give (least, most) from 1 to 6")
        if not 2 * high <= self.pages <= len(NAMES):
            raise ValueError(f"pages={self.pages}; give {2 * high} to {len(NAMES)} for {high} hops")

    def start(self, split: Split, index: int) -> State:
        """The test split gets the tasks whose chain hashes to it."""
        low, high = self.hops
        hops = low + index % (high - low + 1)
        key = Key(self.seed, ("lookup", self.pages, split, index))
        return draw_for(split, key, lambda rng: self.draw(rng, hops), lambda state: state.chain)

    def draw(self, rng: np.random.Generator, hops: int) -> State | None:
        """A corpus and a chain through it; None where the chain would come back to a page of its own."""
        count = self.pages
        names = [NAMES[place] for place in np.sort(rng.permutation(len(NAMES))[:count])]
        signs = rng.permutation(len(SIGNS))[:count]
        codes = rng.permutation(10**DIGITS)[:count]
        boss, friend = _circle(rng, count), _circle(rng, count)
        corpus = Corpus(
            tuple(
                Page(
                    names[i],
                    SIGNS[signs[i]],
                    names[boss[i]],
                    names[friend[i]],
                    " ".join(f"{codes[i]:0{DIGITS}d}"),
                )
                for i in range(count)
            )
        )
        at = int(rng.integers(count))
        walked, relations = [at], []
        for _ in range(hops - 1):
            relation = int(rng.integers(len(RELATIONS)))
            at = int((boss, friend)[relation][at])
            walked.append(at)
            relations.append(RELATIONS[relation])
        if len(set(walked)) < hops:
            return None
        chain = tuple(corpus.pages[place] for place in walked)
        state = State(chain, tuple(relations), corpus)
        return replace(state, seen=(state.question,))

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        texts = (
            *NAMES,
            *ADJECTIVES,
            *ANIMALS,
            *RELATIONS,
            "sign code of found nothing no page",
            HELP,
        )
        return listed(INSTRUCTION.text, *texts)

    def expert(self, state: State) -> str:
        """Follows the question through what was told so far."""
        question, *told = state.seen
        relations, _, sign = question.removeprefix("code of ").rpartition("sign ")
        names = [text.removeprefix("found ") for text in told if text.startswith("found ")]
        if not names:
            return f"search {sign}"
        name = names[0]
        for relation in (*reversed(relations.split(" of ")[:-1]), "code"):
            page = next((text for text in told if text.startswith(f"{name}. ")), None)
            if page is None:
                return f"read {name}"
            name = page.partition(f"{relation} ")[2].partition(".")[0]
        return f"answer {name}"

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Looks for or reads anything that was named, and answers with a random code, or one that it has read."""
        question, *told = state.seen
        codes = [text.rpartition("code ")[2].rstrip(".") for text in told if " code " in text]
        names = sorted({word.strip(".,") for text in told for word in text.split()} & set(NAMES))
        choices = [
            f"search {question.rpartition('sign ')[2]}",
            f"answer {' '.join(str(digit) for digit in rng.integers(10, size=DIGITS))}",
            *(f"answer {code}" for code in codes),
            *(f"read {name}" for name in names),
            *(f"search {name}" for name in names),
        ]
        return one_of(rng, choices)

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        """`answer` is the gold code; `extras["other"]` one of another page, for the control with a wrong answer."""
        made = []
        for index in range(self.train if split == "train" else self.test):
            state = self.start(split, index)
            others = [page.code for page in state.corpus.pages if page.code != state.gold]
            made.append(
                Task(
                    id=f"{self.name}-{split}-{index}",
                    prompt=(INSTRUCTION,),
                    answer=state.gold,
                    env=self.name,
                    difficulty=len(state.chain),
                    extras={"split": split, "index": index, "other": others[index % len(others)]},
                )
            )
        return made

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes corpus and question."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, state.question)

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        verb, _, rest = action_of(action).partition(" ")
        if verb == "answer":
            solved = rest == state.gold
            reward = token_f1(rest, state.gold) if self.graded else float(solved)
            end = End.SOLVED if solved else End.FAILED
            return Step(replace(state, over=True), "right" if solved else "wrong", reward, end)
        if verb == "search" and rest:
            told = state.corpus.search(rest)
        elif verb == "read" and rest:
            told = state.corpus.read(rest)
        else:
            told = HELP
        return Step(replace(state, seen=(*state.seen, told)), told)

    async def fork(self, state: State) -> State:
        return state


def _circle(rng: np.random.Generator, count: int) -> np.ndarray:
    """A permutation that is one circle through all of `count`: nobody is their own boss."""
    order = rng.permutation(count)
    following = np.empty(count, np.int64)
    following[order] = np.roll(order, -1)
    return following
