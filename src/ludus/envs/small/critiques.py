"""Additions that somebody answered, to be criticised; then the answer is given again by whoever read the critique.

    4 3 + 3 2 = 6 5
      Step 1: units 5 right
      Step 2: tens 7 wrong
      Correctness of the final answer: Wrong
    7 5

Numbers are spelled, so that a digit is one token wherever it stands. Half of the first answers are wrong, by one in one
digit, and nothing is carried. Whether the verdict is right is told in `info`, never shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ludus.envs.world import LONGEST, Split, draw_for, listed, one_of, place_of, refuse_if_over
from ludus.rewards.critique import verdict
from ludus.types import End, Key, Message, Step, Task

INSTRUCTION = Message("system", "Do every step again, then judge the answer.")
_STEPS = re.compile(
    r"^Step 1: units (\d) (?:right|wrong)\nStep 2: tens (\d) (?:right|wrong)$", re.M
)


@dataclass(frozen=True)
class State:
    """`critique` as it is shown to the one who answers again; None before it is written."""

    first: int
    second: int
    attempt: int
    critique: str | None = None
    over: bool = False

    @property
    def total(self) -> int:
        return self.first + self.second

    @property
    def correct(self) -> bool:
        return self.attempt == self.total


@dataclass(frozen=True)
class Critiques:
    """Two turns a task: a critique, and a second answer. The sum has two digits, as both terms do.

    largest   digit of a term, 2 to 4, so that nothing is carried; the smallest is 1
    errs      share of the first answers that are wrong
    attempts  first answers of each problem; the tasks of a problem follow one another
    """

    largest: int = 4
    errs: float = 0.5
    attempts: int = 4
    train: int = 2048
    test: int = 256
    seed: int = 0
    name: str = "critiques"

    def __post_init__(self) -> None:
        if not 2 <= self.largest <= 4:
            raise ValueError(f"largest={self.largest}; give 2 to 4, so that nothing is carried")

    def start(self, split: Split, index: int) -> State:
        """The test split gets the tasks whose terms hash to it."""
        key = Key(self.seed, ("critiques", split, index // self.attempts))
        first, second = draw_for(split, key, self.terms, lambda terms: terms)
        rng = (key / "attempt" / (index % self.attempts)).generator()
        total = first + second
        return State(first, second, mistaken(total, rng) if rng.random() < self.errs else total)

    def terms(self, rng: np.random.Generator) -> tuple[int, int]:
        a, b, c, d = rng.integers(1, self.largest + 1, size=4).tolist()
        return 10 * a + b, 10 * c + d

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        texts = "Step units tens right wrong Correctness of the final answer Correct Wrong"
        return (*listed(INSTRUCTION.text, texts), *"+=:")

    def expert(self, state: State) -> str:
        if state.critique is not None:
            return spelled(state.total)
        right = [a == b for a, b in zip(f"{state.total}", f"{state.attempt}", strict=True)]
        return critique(state.total, units=right[1], tens=right[0])

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Makes a mistake in most additions, finds none in the answer or one anywhere, and answers with any number."""
        if state.critique is not None:
            return spelled(int(rng.integers(10, 100)))
        total = mistaken(state.total, rng) if rng.random() < 0.7 else state.total
        wrong = one_of(rng, ("", "", "units", "tens"))
        return critique(total, units=wrong != "units", tens=wrong != "tens")

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        made = []
        for index in range(self.train if split == "train" else self.test):
            state = self.start(split, index)
            made.append(
                Task(
                    id=f"{self.name}-{split}-{index}",
                    prompt=(INSTRUCTION,),
                    answer=spelled(state.total),
                    env=self.name,
                    extras={"split": split, "index": index},
                )
            )
        return made

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the terms and the first answer."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, f"{problem(state)} = {spelled(state.attempt)}")

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        if state.critique is None:
            told = shown(action)
            info = {
                "problem": problem(state),
                "attempt": spelled(state.attempt),
                "correct": state.correct,
            }
            return Step(replace(state, critique=told), told, info=info)
        after = replace(state, over=True)
        if action.split() == spelled(state.total).split():
            return Step(after, "right", 1.0, End.SOLVED)
        return Step(after, "wrong", 0.0, End.FAILED)

    async def fork(self, state: State) -> State:
        return state


def problem(state: State) -> str:
    return f"{spelled(state.first)} + {spelled(state.second)}"


def spelled(number: int) -> str:
    return " ".join(str(number))


def critique(total: int, *, units: bool, tens: bool) -> str:
    """Of somebody who takes `total` for the sum and finds its two digits in the answer, or not."""
    told = {True: "right", False: "wrong"}
    return (
        f"Step 1: units {total % 10} {told[units]}\n"
        f"Step 2: tens {total // 10} {told[tens]}\n"
        f"Correctness of the final answer: {'Correct' if units and tens else 'Wrong'}"
    )


def shown(critique: str) -> str:
    """What is passed on of a critique: from its first step on, as in the release; nothing where it has none."""
    _, step, rest = critique[:LONGEST].partition("Step 1:")
    return step + rest


def advised(state: State, critique: str) -> int:
    """The answer of somebody who does as the critique says: where it finds a mistake, the sum that its steps give."""
    steps = _STEPS.search(critique)
    if verdict(critique) != "wrong" or steps is None:
        return state.attempt
    return int(steps[2] + steps[1])


def mistaken(total: int, rng: np.random.Generator) -> int:
    """The number with one digit off by one, still of two digits."""
    near = [total - 10, total + 10, *(total - total % 10 + (total + by) % 10 for by in (-1, 1))]
    return one_of(rng, [number for number in near if 10 <= number < 100])
