"""A memory task: facts are told over many turns, among chatter, and one of them is asked for at the end.

    Cleo keeps blue keys. Finn likes red cups. ...        one page a turn; the reader only says ok
    which keys does Cleo keep?                            blue

A page holds one sentence that counts, `NAME keeps COLOUR keys`, and many that do not. A context that holds the last
pages alone loses most of what may be asked; one that is summarised must keep the keys and drop the chatter (SUPO,
arXiv:2510.06727). Names and colours also stand in the chatter, so nothing but the sentence itself gives the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ludus.envs.world import Split, action_of, draw_for, listed, one_of, place_of, refuse_if_over
from ludus.types import End, Key, Message, Step, Task

NAMES = tuple(
    "Ann Bob Cleo Dan Eve Finn Gus Hal Ida Jo Kit Lou Max Ned Oz Pia Quin Ray Sue Tom Uma Vic Wes Xia Yan Zoe "
    "Abe Bea Cal Dot Eli Fay".split()
)
COLOURS = tuple("red blue green white black brown pink grey".split())
VERBS = tuple("likes wants sells paints".split())
THINGS = tuple("cups hats bells stones".split())
INSTRUCTION = Message(
    "system",
    "Remember who keeps which keys. Say ok to each page. Answer the question with one word.",
)
ACK = "ok"


@dataclass(frozen=True)
class State:
    """`facts` in the order of the pages; `shown` pages have been told, one more than all of them is the question."""

    facts: tuple[tuple[str, str], ...]
    pages: tuple[str, ...]
    asked: int
    shown: int = 1
    over: bool = False

    @property
    def question(self) -> str:
        return f"which keys does {self.facts[self.asked][0]} keep?"


@dataclass(frozen=True)
class Memory:
    """As SUPO's demonstration has it: twelve pages of 40 tokens; `replace(env, turns=24)` is the longer test.

    turns      pages
    facts      how many of the pages hold a fact; then the chatter has no colours, so that a small base learns to copy
               the one that counts. 0, the default, puts one on each page, among colours that do not count
    sentences  on a page, of five tokens each (three words, a thing and a full stop): eight make 40 tokens
    """

    turns: int = 12
    sentences: int = 8
    facts: int = 0
    train: int = 2048
    test: int = 256
    seed: int = 0
    name: str = "memory"

    def __post_init__(self) -> None:
        if not 1 <= self.turns <= len(NAMES) or self.sentences < 1:
            raise ValueError(
                f"turns={self.turns}, sentences={self.sentences}; give 1 to {len(NAMES)} turns (each has a name "
                "of its own), and at least one sentence"
            )
        if not 0 <= self.facts <= self.turns:
            raise ValueError(
                f"facts={self.facts}; give 1 to {self.turns} for so many pages, or 0 for all"
            )

    def start(self, split: Split, index: int) -> State:
        """The test split gets the tasks whose facts and question hash to it."""
        key = Key(self.seed, ("memory", self.turns, split, index))
        return draw_for(split, key, self.draw, lambda state: (state.facts, state.asked))

    def draw(self, rng: np.random.Generator) -> State:
        chatter = (NAMES, VERBS, THINGS) if self.facts else (NAMES, VERBS, COLOURS, THINGS)
        names = [NAMES[place] for place in rng.permutation(len(NAMES))[: self.turns]]
        colours = [COLOURS[place] for place in rng.integers(len(COLOURS), size=self.turns)]
        places = rng.integers(self.sentences, size=self.turns)
        sizes = [len(words) for words in chatter]
        drawn = rng.integers(sizes, size=(self.turns, self.sentences, len(chatter)))
        told = list(range(self.turns))
        if self.facts:
            told = sorted(rng.permutation(self.turns)[: self.facts].tolist())
        pages = []
        for turn, name in enumerate(names):
            lines = [
                " ".join(words[place] for words, place in zip(chatter, line, strict=True)) + "."
                for line in drawn[turn].tolist()
            ]
            if turn in told:
                lines[places[turn]] = f"{name} keeps {colours[turn]} keys."
            pages.append(" ".join(lines))
        facts = tuple((names[turn], colours[turn]) for turn in told)
        return State(facts, tuple(pages), int(rng.integers(len(facts))))

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        texts = (*NAMES, *COLOURS, *VERBS, *THINGS, "keeps keys which does keep", ACK)
        return listed(INSTRUCTION.text, *texts)

    def expert(self, state: State) -> str:
        """Finds the sentence about the name that is asked for in the pages that were shown."""
        if state.shown <= len(state.pages):
            return ACK
        name = state.question.split()[3]
        said = " ".join(state.pages).split(f"{name} keeps ")[1]
        return said.split()[0]

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        return ACK if state.shown <= len(state.pages) else one_of(rng, COLOURS)

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [
            Task(
                id=f"{self.name}-{split}-{index}",
                prompt=(INSTRUCTION,),
                env=self.name,
                difficulty=self.turns,
                extras={"split": split, "index": index},
            )
            for index in range(self.train if split == "train" else self.test)
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the pages and the question."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, state.pages[0])

    async def step(self, state: State, action: str) -> Step:
        """Whatever is said to a page, the next one comes; only the answer to the question counts."""
        refuse_if_over(state.over)
        after = replace(state, shown=state.shown + 1)
        if state.shown < len(state.pages):
            return Step(after, state.pages[state.shown])
        if state.shown == len(state.pages):
            return Step(after, state.question)
        after = replace(state, over=True)
        if action_of(action).lower() == state.facts[state.asked][1]:
            return Step(after, "right", 1.0, End.SOLVED)
        return Step(after, "wrong", 0.0, End.FAILED)

    async def fork(self, state: State) -> State:
        return state
