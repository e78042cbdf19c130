"""Chain sums with their thoughts: every running sum, and the last one as the answer.

    2 + 3 + 1 + 4
    <think> 5 6 10</think><answer> 10</answer>

The answer follows from the thoughts, and may be spelled in two ways ("ten"). All terms are positive, so running sums
grow and the answer is never among those before it: `hint` tells them all and leaks nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import numpy as np

from ludus.curricula.hints import hint_message
from ludus.envs.world import Split, draw_for, listed, one_of, place_of, refuse_if_over
from ludus.types import End, Key, Message, Step, Task

UNITS = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen".split()
)
TENS = tuple("twenty thirty forty fifty sixty seventy eighty ninety".split())
INSTRUCTION = Message("system", "Write every running sum, then the last one as the answer.")
SYMBOLS = ("<", ">", "/", "+")


def in_words(number: int) -> str:
    """0 to 99: 21 is "twenty one"."""
    if number < len(UNITS):
        return UNITS[number]
    tens = TENS[number // 10 - 2]
    return f"{tens} {UNITS[number % 10]}" if number % 10 else tens


@dataclass(frozen=True)
class State:
    """`hinted` if the prompt told all running sums but the last."""

    terms: tuple[int, ...]
    hinted: bool = False
    over: bool = False

    @property
    def sums(self) -> tuple[int, ...]:
        return tuple(accumulate(self.terms))[1:]


@dataclass(frozen=True)
class Sums:
    """One turn a task.

    terms      least and most numbers to add; tasks take the lengths in turn
    largest    of a term; the smallest is 1
    reference  how Task.answer spells the sum; either way of writing it is right
    spelled    share of the sums whose answer the players write in words
    hinted     share of the tasks whose prompt has the hint, to train a base on that is to understand hints
    """

    terms: tuple[int, int] = (4, 6)
    largest: int = 4
    reference: Literal["digits", "words"] = "digits"
    spelled: float = 0.0
    hinted: float = 0.0
    train: int = 1024
    test: int = 128
    seed: int = 0
    name: str = "sums"

    def __post_init__(self) -> None:
        low, high = self.terms
        if not 2 <= low <= high or not 2 <= self.largest <= 99 // high:
            raise ValueError(
                f"terms={self.terms}, largest={self.largest}; give (least, most) from 2, and sums below 100"
            )

    def start(self, split: Split, index: int) -> State:
        """The test split gets the tasks whose terms hash to it."""
        low, high = self.terms
        count = low + index % (high - low + 1)
        key = Key(self.seed, ("sums", split, index))
        terms = draw_for(
            split,
            key,
            lambda rng: tuple(rng.integers(1, self.largest + 1, size=count).tolist()),
            lambda terms: terms,
        )
        return State(terms, hinted=(key / "hinted").generator().random() < self.hinted)

    def hint(self, task: Task) -> str:
        """All running sums but the last."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return " ".join(map(str, state.sums[:-1]))

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        texts = (INSTRUCTION.text, "Hint think answer right wrong", *UNITS, *TENS)
        return (*listed(*texts), *SYMBOLS)

    def expert(self, state: State) -> str:
        return self.written(state, state.sums)

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Is off by one or two in half of the sums that no hint tells, and goes on from there."""
        said = list(state.sums[:-1]) if state.hinted else []
        for term in state.terms[1 + len(said) :]:
            before = said[-1] if said else state.terms[0]
            slip = one_of(rng, (-1, 1, 2)) if rng.random() < 0.5 else 0
            said.append(max(0, before + term + slip))
        return self.written(state, said)

    def written(self, state: State, sums: Sequence[int]) -> str:
        spelled = Key(self.seed, ("spelled", *state.terms)).generator().random() < self.spelled
        answer = in_words(sums[-1]) if spelled else str(sums[-1])
        return f"<think> {' '.join(map(str, sums))}</think><answer> {answer}</answer>"

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        made = []
        for index in range(self.train if split == "train" else self.test):
            state = self.start(split, index)
            total = state.sums[-1]
            task = Task(
                id=f"{self.name}-{split}-{index}",
                prompt=(INSTRUCTION,),
                answer=in_words(total) if self.reference == "words" else str(total),
                env=self.name,
                difficulty=len(state.terms),
                extras={"split": split, "index": index},
            )
            if state.hinted:
                task = replace(task, prompt=(INSTRUCTION, hint_message(self.hint(task))))
            made.append(task)
        return made

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the terms."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, " + ".join(map(str, state.terms)))

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        after, total = replace(state, over=True), state.sums[-1]
        if given(action) in (str(total), in_words(total)):
            return Step(after, "right", 1.0, End.SOLVED)
        return Step(after, "wrong", 0.0, End.FAILED)

    async def fork(self, state: State) -> State:
        return state


def given(text: str) -> str:
    """What stands in the last <answer>, on one line; "" if it is not closed or not there."""
    answer, closed, _ = text.rpartition("<answer>")[2].partition("</answer>")
    return " ".join(answer.split()) if closed and "<answer>" in text else ""
