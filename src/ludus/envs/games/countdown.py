"""Countdown: reach the target with the given numbers, each used once, and + - * / and brackets.

    numbers 3 5 8 target 16      (5 - 3) * 8      solved

The arithmetic round of the television game, as a task for language models since Stream of Search (arXiv:2404.03683).
What is written is read by the two stacks of the shunting-yard method, never run as code, and computed in fractions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np

from ludus.envs.games.shared import GIVE_UP, given_up, listed_tasks
from ludus.envs.world import Split, action_of, draw_for, listed, one_of, place_of, refuse_if_over
from ludus.types import End, Key, Message, Step, Task

ASK = (
    "Reach the target with the numbers, {use}, and + - * / and brackets. Write one line of arithmetic without a "
    "result.{whole} Write give up if you cannot go on."
)
ALL, SOME = "using each of them once", "using each of them once or not at all"
WHOLE = " A division must leave no rest."
UNREADABLE = "this is no arithmetic"
RANK = {"+": 1, "-": 1, "*": 2, "/": 2}


@dataclass(frozen=True)
class State:
    numbers: tuple[int, ...]
    target: int
    tries: int
    over: bool = False


# ---------------------------------------------------------------------------------------------- reading

_TOKEN = re.compile(r" *([0-9]{1,9}|[-+*/()])")


class Refused(ValueError):
    """Raised on what the rules do not allow; its text is told to the player."""


def tokens_of(text: str) -> list[int | str]:
    """Numbers, operators and brackets; Refused where anything else stands."""
    found: list[int | str] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Refused(UNREADABLE)
        found.append(int(match[1]) if match[1].isdigit() else match[1])
        at = match.end()
    return found


def apply(operator: str, a: Fraction, b: Fraction, whole: bool) -> Fraction:
    """a operator b. `whole` refuses a division that leaves a rest."""
    match operator:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
    if not b:
        raise Refused("division by 0")
    if whole and (a / b).denominator > 1:
        raise Refused(f"{a} / {b} leaves a rest")
    return a / b


def refuse_ungrammatical(tokens: Sequence[int | str]) -> None:
    """Refused unless numbers and operators take turns and the brackets match; a sign before a number is none of the
    rules."""
    number_next, depth = True, 0
    for token in tokens:
        if number_next != (isinstance(token, int) or token == "("):
            raise Refused(UNREADABLE)
        depth += (token == "(") - (token == ")")
        if depth < 0:
            raise Refused(UNREADABLE)
        if token not in ("(", ")"):
            number_next = not number_next
    if number_next or depth:
        raise Refused(UNREADABLE)


def value_of(tokens: Sequence[int | str], whole: bool) -> Fraction:
    """The value, with * and / before + and -, equals from the left."""
    refuse_ungrammatical(tokens)
    values: list[Fraction] = []
    waiting: list[str] = []  # operators and open brackets whose right side is not read yet

    def settle(rank: int) -> None:
        """Apply what waits and binds as tightly as `rank`, back to the last open bracket."""
        while waiting and waiting[-1] != "(" and RANK[waiting[-1]] >= rank:
            operator, b, a = waiting.pop(), values.pop(), values.pop()
            values.append(apply(operator, a, b, whole))

    for token in tokens:
        if isinstance(token, int):
            values.append(Fraction(token))
        elif token == "(":
            waiting.append(token)
        elif token == ")":
            settle(1)
            waiting.pop()
        else:
            settle(RANK[token])
            waiting.append(token)
    settle(1)
    return values[0]


def check(text: str, numbers: Sequence[int], use_all: bool, whole: bool) -> Fraction:
    """The value of `text`, if it is arithmetic over these numbers; else Refused. Grammar and use are checked
    before anything is computed, so that nothing large ever is."""
    tokens = tokens_of(text)
    refuse_ungrammatical(tokens)
    used, given = Counter(t for t in tokens if isinstance(t, int)), Counter(numbers)
    for number in used:
        if used[number] > given[number]:
            there = "once too often" if given[number] else "and it is not there"
            raise Refused(f"you used {number} {there}")
    if use_all and used != given:
        raise Refused(f"you did not use {min(given - used)}")
    return value_of(tokens, whole)


# ---------------------------------------------------------------------------------------------- solving

Part = tuple[Fraction, str]
"""(value, how it is written; in brackets where it is made of others)"""


def combined(a: Part, b: Part, whole: bool) -> Iterator[Part]:
    """All that two parts can make, without negative values."""
    (x, one), (y, two) = (a, b) if a[0] >= b[0] else (b, a)
    yield x + y, f"({one} + {two})"
    yield x * y, f"({one} * {two})"
    yield x - y, f"({one} - {two})"
    for (top, left), (below, right) in (((x, one), (y, two)), ((y, two), (x, one))):
        if below and not (whole and (top / below).denominator > 1):
            yield top / below, f"({left} / {right})"


@lru_cache(maxsize=4096)
def solve(numbers: tuple[int, ...], target: int, use_all: bool, whole: bool) -> str | None:
    """A way to the target, by trying all; None where there is none."""
    known: set[tuple[Fraction, ...]] = set()

    def search(parts: list[Part]) -> str | None:
        for value, text in parts if len(parts) == 1 or not use_all else ():
            if value == target:
                return text.removeprefix("(").removesuffix(")") if " " in text else text
        values = tuple(sorted(value for value, _ in parts))
        if values in known:
            return None
        known.add(values)
        for i in range(len(parts)):
            for j in range(i):
                others = [part for k, part in enumerate(parts) if k not in (i, j)]
                for made in combined(parts[i], parts[j], whole):
                    found = search([*others, made])
                    if found:
                        return found
        return None

    return search([(Fraction(number), str(number)) for number in numbers])


# ---------------------------------------------------------------------------------------------- the environment


@dataclass(frozen=True)
class Countdown:
    """Reward 1 for the target, and `form` where the last try was readable and missed it (TinyZero's verifier gives
    0.1, also for wrong numbers); 0 for what cannot be read.

    count    least and most numbers of a task, which take turns; that is the difficulty
    largest  number, and `target` that is asked for (TinyZero has 3 or 4 numbers up to 99)
    tries    1 makes it one turn; with more, a player is told what came out
    use_all  every number must be used, as in TinyZero; else each may be left out, as on television
    whole    a division must leave no rest, as on television
    """

    count: tuple[int, int] = (3, 4)
    largest: int = 20
    target: int = 99
    tries: int = 1
    use_all: bool = True
    whole: bool = True
    form: float = 0.0
    train: int = 1024
    test: int = 128
    seed: int = 0
    name: str = "countdown"

    def __post_init__(self) -> None:
        least, most = self.count
        if not 2 <= least <= most <= 6:
            raise ValueError(f"count={self.count}; give (least, most) from 2 to 6")
        if self.largest < 5 or self.target < 5 or self.tries < 1:
            raise ValueError(
                f"largest={self.largest}, target={self.target}, tries={self.tries}; give 5 or more, and 1 try or more"
            )

    def start(self, split: Split, index: int) -> State:
        """The test split gets the numbers and targets that hash to it."""
        least, most = self.count
        count = least + index % (most - least + 1)
        key = Key(self.seed, ("countdown", count, split, index))
        return draw_for(
            split,
            key,
            lambda rng: self.draw(rng, count),
            lambda state: (sorted(state.numbers), state.target),
        )

    def draw(self, rng: np.random.Generator, count: int) -> State | None:
        """Numbers, and a target that is reached with all of them; None where it is too large, or one of them."""
        numbers = tuple(int(number) for number in rng.integers(1, self.largest + 1, size=count))
        parts = [(Fraction(number), "") for number in numbers]
        while len(parts) > 1:
            a, b = (parts.pop(int(rng.integers(len(parts)))) for _ in range(2))
            parts.append(one_of(rng, list(combined(a, b, whole=True))))
        target = int(parts[0][0])
        if not 1 <= target <= self.target or target in numbers:
            return None
        return State(numbers, target, self.tries)

    # ------------------------------------------------------------------------------------ players

    @property
    def instruction(self) -> Message:
        use, whole = ALL if self.use_all else SOME, WHOLE if self.whole else ""
        return Message("system", ASK.format(use=use, whole=whole))

    def words(self) -> tuple[str, ...]:
        told = "numbers target that is you used did not use and it there once too often division by left"
        return (*listed(self.instruction.text, UNREADABLE, told, WHOLE, "leaves a"), *"+-*/()")

    def expert(self, state: State) -> str:
        return solve(state.numbers, state.target, self.use_all, self.whole) or GIVE_UP

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """All numbers in any order, with any of + - * between them."""
        numbers = [state.numbers[place] for place in rng.permutation(len(state.numbers))]
        return str(numbers[0]) + "".join(f" {one_of(rng, '+-*')} {n}" for n in numbers[1:])

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        least, most = self.count
        places = range(self.train if split == "train" else self.test)
        counts = (least + index % (most - least + 1) for index in places)
        return listed_tasks(self, split, self.instruction, counts)

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the numbers."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, f"numbers {' '.join(map(str, state.numbers))} target {state.target}")

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        said = action_of(action)
        if said.lower() == GIVE_UP:
            return given_up(state)
        try:
            value = check(said, state.numbers, self.use_all, self.whole)
            told = f"that is {value}"
        except Refused as refused:
            value, told = None, str(refused)
        tried = replace(state, tries=state.tries - 1)
        if value == state.target:
            return Step(replace(tried, over=True), told, 1.0, End.SOLVED)
        if not tried.tries:
            reward = 0.0 if told == UNREADABLE else self.form
            return Step(replace(tried, over=True), told, reward, End.FAILED)
        return Step(tried, f"{told}, {tried.tries} left")

    async def fork(self, state: State) -> State:
        return state
