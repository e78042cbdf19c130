"""A line of praise, and how good it is: a task whose reward is a number and not right or wrong.

The query names two things; the answer is a line of words. Each thing has an opinion of each word, hidden in a
permutation; a word is worth the mean of the two opinions, scaled so that the best word for a query is worth 1. The line
earns the mean over `enough` places; what is missing earns 0, and what goes beyond costs.

    query   moon and river
    answer  calm bright calm gentle golden

    gold = (sum of the first `enough` words' worth) / enough - waste * (words beyond enough)

So 1 is the best there is, 0 is silence, and a line of random words earns about 0. Words that do not belong to the
language are worth -1. The task opens with the whole query (`Task.prompt`), so that strategies of one answer and a
reward (ludus.rewards.gold) need no environment; played as an environment it pays 1 to a line that earns `bar` or more.

What an optimiser can overdo here: one best word again and again (nothing is varied), and lines beyond what is enough,
where a reward learnt from shorter lines says that longer is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ludus.envs.world import Split, listed, one_of, place_of, refuse_if_over, side
from ludus.types import End, Key, Message, Step, Task

THINGS = tuple("moon river garden winter harbour song".split())
WORDS = tuple("bright calm warm gentle golden quiet dull cold grey bitter broken heavy".split())
LOOK = '"{said}" can be better.'  # how one answer is put to whoever answers next
BEGIN = "Write."


@dataclass(frozen=True)
class State:
    a: int
    b: int
    over: bool = False


@dataclass(frozen=True)
class Praise:
    """enough       words that are paid
    waste        cost of each word beyond them
    bar          gold from which a line counts as solved
    train, test  number of tasks; the pairs of things of one split are not in the other
    seed         of the opinions
    """

    enough: int = 6
    waste: float = 0.1
    bar: float = 0.5
    train: int = 256
    test: int = 256
    seed: int = 0
    name: str = "praise"

    def __post_init__(self) -> None:
        if self.enough < 1 or self.waste < 0:
            raise ValueError(
                f"enough={self.enough}, waste={self.waste:g}; give at least 1, and a cost of 0 or more"
            )

    # ------------------------------------------------------------------------------------ what a line is worth

    @cached_property
    def opinions(self) -> np.ndarray:
        """[things, words]: from -1 to 1 in equal steps, in an order of its own for each thing."""
        steps = np.linspace(-1, 1, len(WORDS))
        rng = Key(self.seed, ("praise",)).generator()
        return np.stack([rng.permutation(steps) for _ in THINGS])

    def worth(self, state: State) -> dict[str, float]:
        """Of each word in answer to this query; that of the best is 1."""
        mean = (self.opinions[state.a] + self.opinions[state.b]) / 2
        return dict(zip(WORDS, (mean / mean.max()).tolist(), strict=True))

    def gold(self, state: State, line: str) -> float:
        said = line.split()
        worth = self.worth(state)
        paid = sum(worth.get(word, -1.0) for word in said[: self.enough])
        return paid / self.enough - self.waste * max(0, len(said) - self.enough)

    def ranked(self, state: State) -> list[str]:
        """All words, the best first."""
        worth = self.worth(state)
        return sorted(worth, key=lambda word: -worth[word])

    def line(self, state: State, rng: np.random.Generator, share: float, length: int) -> str:
        """So many words, each with probability `share` one of the best third and else any."""
        best = self.ranked(state)[: len(WORDS) // 3]
        return " ".join(one_of(rng, best if rng.random() < share else WORDS) for _ in range(length))

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        return listed(*THINGS, *WORDS, "and", LOOK.replace("{said}", ""), BEGIN)

    def expert(self, state: State) -> str:
        """The two best words in turn."""
        return " ".join(self.ranked(state)[i % 2] for i in range(self.enough))

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        return self.line(state, rng, 0.0, int(rng.integers(1, self.enough + 1)))

    # ------------------------------------------------------------------------------------ the environment

    def pairs(self, split: Split) -> list[tuple[int, int]]:
        """The queries of a split; a pair is in the same one whichever thing is named first."""
        every = range(len(THINGS))
        return [(a, b) for a in every for b in every if side(("praise", *sorted((a, b)))) == split]

    def start(self, split: Split, index: int) -> State:
        pairs = self.pairs(split)
        return State(*pairs[index % len(pairs)])

    def query(self, state: State) -> str:
        return f"{THINGS[state.a]} and {THINGS[state.b]}"

    def state(self, task: Task) -> State:
        """What a task asks about."""
        counts: Mapping[Split, int] = {"train": self.train, "test": self.test}
        return self.start(*place_of(self, task, counts))

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [
            Task(
                id=f"{self.name}-{split}-{index}",
                prompt=(Message("user", self.query(self.start(split, index))),),
                env=self.name,
                extras={"split": split, "index": index},
            )
            for index in range(self.train if split == "train" else self.test)
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the query."""
        return Step(self.state(task), BEGIN)

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        after = replace(state, over=True)
        if self.gold(state, action) >= self.bar:
            return Step(after, "good", 1.0, End.SOLVED)
        return Step(after, "poor", 0.0, End.FAILED)

    async def fork(self, state: State) -> State:
        return state
