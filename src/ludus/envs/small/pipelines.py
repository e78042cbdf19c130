"""Short programs with tests: a program is a few lines, each of which makes a new list out of a list of numbers.

An order is some words, and each word asks for one line. The lines come in pairs that a beginner often mixes up: which
of the two a word means is for the learner to find out. A program is run on the tests of its order; the two lines
of a pair agree on some lists, so a wrong program passes some of them, now and then all that are shown.

    prompt  amber cedar flint dune        ([2, -1, 0] -> [4, 0, 1] is one of its tests)
    answer  sort
            square
            reverse
            unique
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ludus.envs.world import Split, draw_for, listed, place_of, refuse_if_over
from ludus.types import End, Key, Step, Task

Numbers = tuple[int, ...]

LINES: Mapping[str, Callable[[Numbers], Numbers]] = {
    "sort": lambda x: tuple(sorted(x)),
    "reverse": lambda x: x[::-1],
    "double": lambda x: tuple(2 * v for v in x),
    "square": lambda x: tuple(v * v for v in x),
    "absolute": lambda x: tuple(abs(v) for v in x),
    "negate": lambda x: tuple(-v for v in x),
    "unique": lambda x: tuple(dict.fromkeys(x)),
    "rotate": lambda x: (*x[1:], *x[:1]),
}
PAIRS = (("sort", "reverse"), ("double", "square"), ("absolute", "negate"), ("unique", "rotate"))
TWIN = {line: other for a, b in PAIRS for line, other in ((a, b), (b, a))}
WORDS = tuple("amber birch cedar dune ember flint grove heath".split())  # two for each pair
LARGEST = 10**6  # a program that goes beyond it is stopped


def run(program: str, values: Numbers) -> Numbers | None:
    """What a program makes of a list; None if it has a line that is none, or numbers that are too large."""
    for line in program.split("\n"):
        if not line.strip():
            continue
        if line.strip() not in LINES:
            return None
        values = LINES[line.strip()](values)
        if any(abs(v) > LARGEST for v in values):
            return None
    return values


@dataclass(frozen=True)
class State:
    """`order` are numbers of WORDS."""

    order: tuple[int, ...]
    over: bool = False


@dataclass(frozen=True)
class Pipelines:
    """One turn a task; the reward is the share of the shown tests that the program passes.

    lines    least and most words of an order; tasks take the lengths in turn
    shown    tests that the reward is made from
    hidden   further tests; solved is who passes all of both
    values   most numbers in a test's list, from -2 to 2
    known    share of its lines that a beginner gets right
    """

    lines: tuple[int, int] = (4, 4)
    shown: int = 8
    hidden: int = 8
    values: int = 4
    known: float = 0.75
    train: int = 1024
    test: int = 256
    seed: int = 0
    name: str = "pipelines"

    def __post_init__(self) -> None:
        low, high = self.lines
        if not 1 <= low <= high or self.shown < 1 or self.hidden < 0:
            raise ValueError(
                f"lines={self.lines}, shown={self.shown}, hidden={self.hidden}; give (least, most) from 1, a shown "
                "test or more, and 0 or more hidden ones"
            )
        if self.values < 2 or not 0 <= self.known <= 1:
            raise ValueError(
                f"values={self.values}, known={self.known:g}; give lists of up to 2 or more, and a share in [0,1]"
            )

    def meant(self, word: int) -> str:
        """The line that a word asks for: of its pair one is meant by the even word, the other by the odd one."""
        pair, odd = divmod(word, 2)
        turned = (Key(self.seed, ("meant", pair))).generator().random() < 0.5
        return PAIRS[pair][odd ^ turned]

    def start(self, split: Split, index: int) -> State:
        """The test split gets the orders that hash to it."""
        low, high = self.lines
        count = low + index % (high - low + 1)
        order = draw_for(
            split,
            Key(self.seed, ("pipelines", split, index)),
            lambda rng: tuple(rng.integers(len(WORDS), size=count).tolist()),
            lambda order: order,
        )
        return State(order)

    def inputs(self, state: State) -> list[Numbers]:
        """The lists of the tests of an order, the shown ones first."""
        rng = Key(self.seed, ("inputs", *state.order)).generator()
        return [
            tuple(rng.integers(-2, 3, size=int(rng.integers(1, self.values + 1))).tolist())
            for _ in range(self.shown + self.hidden)
        ]

    def verdicts(self, state: State, program: str) -> list[bool]:
        """Of each test, the shown ones first."""
        wanted = self.expert(state)
        return [run(program, x) == run(wanted, x) for x in self.inputs(state)]

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        return listed(*WORDS, *LINES, "passed")

    def expert(self, state: State) -> str:
        return "\n".join(self.meant(word) for word in state.order)

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Each line is right with probability `known`, and else the other one of its pair."""
        right = rng.random(len(state.order)) < self.known
        lines = [self.meant(word) for word in state.order]
        return "\n".join(line if ok else TWIN[line] for line, ok in zip(lines, right, strict=True))

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        made = []
        for index in range(self.train if split == "train" else self.test):
            state = self.start(split, index)
            made.append(
                Task(
                    id=f"{self.name}-{split}-{index}",
                    answer=self.expert(state),
                    env=self.name,
                    difficulty=len(state.order),
                    extras={"split": split, "index": index},
                )
            )
        return made

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the order."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, " ".join(WORDS[word] for word in state.order))

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        verdicts = self.verdicts(state, action)
        passed = sum(verdicts[: self.shown])
        return Step(
            replace(state, over=True),
            f"passed {passed}",
            passed / self.shown,
            End.SOLVED if all(verdicts) else End.FAILED,
        )

    async def fork(self, state: State) -> State:
        return state
