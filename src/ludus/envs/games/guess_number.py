"""Guess the number: find a secret number in a range; every guess is answered with higher or lower.

    from 17 to 56 6 left     guess 36     higher 5 left     guess 46     lower 4 left ...

The game of GEM (arXiv:2510.01051, GuessTheNumber) and TextArena (arXiv:2504.11442). By default there are just as many
guesses as halving the range needs at worst, so a lucky player wins sometimes and one who halves always.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ludus.envs.games.shared import GIVE_UP, INVALID, given_up, listed_tasks
from ludus.envs.world import Split, action_of, draw_for, listed, place_of, refuse_if_over
from ludus.types import End, Key, Message, Step, Task

INSTRUCTION = Message(
    "system",
    "Find the secret number. Write guess and a number, such as guess 12. You are told whether the secret is higher or "
    "lower. Write give up if you cannot go on.",
)
_GUESS = re.compile(r"(?:guess )?([0-9]{1,9})")


@dataclass(frozen=True)
class State:
    """`least` to `most` is the range that was told, both included; `guesses` were made, `left` are left."""

    least: int
    most: int
    secret: int
    left: int
    guesses: tuple[int, ...] = ()
    over: bool = False

    @property
    def possible(self) -> tuple[int, int]:
        """Least and most that the secret can be after what was said."""
        below = [guess for guess in self.guesses if guess < self.secret]
        above = [guess for guess in self.guesses if guess > self.secret]
        return max([self.least, *(g + 1 for g in below)]), min([self.most, *(g - 1 for g in above)])


def needed(numbers: int) -> int:
    """Guesses that halving needs at worst: floor(log2 numbers) + 1. needed(7) = 3, needed(8) = 4."""
    return numbers.bit_length()


@dataclass(frozen=True)
class GuessNumber:
    """Reward 1 for the secret, else 0; `wrong` is added for every other turn.

    span   least and most numbers in a range
    first  where ranges begin at most
    spare  guesses beyond those that halving needs; less than 0 leaves something to luck
    """

    span: tuple[int, int] = (16, 64)
    first: int = 100
    spare: int = 0
    wrong: float = 0.0
    train: int = 1024
    test: int = 128
    seed: int = 0
    name: str = "guess number"

    def __post_init__(self) -> None:
        low, high = self.span
        if not 2 <= low <= high <= 10**6 or self.first < 0 or needed(low) + self.spare < 1:
            raise ValueError(
                f"span={self.span}, first={self.first}, spare={self.spare}; give (least, most) from 2 to a million, "
                "a first from 0, and at least one guess"
            )

    def start(self, split: Split, index: int) -> State:
        """The test split gets the ranges and secrets that hash to it."""
        key = Key(self.seed, ("guess number", split, index))
        return draw_for(
            split, key, self.draw, lambda state: (state.least, state.most, state.secret)
        )

    def draw(self, rng: np.random.Generator) -> State:
        low, high = self.span
        numbers = int(rng.integers(low, high + 1))
        least = int(rng.integers(self.first + 1))
        secret = least + int(rng.integers(numbers))
        return State(least, least + numbers - 1, secret, needed(numbers) + self.spare)

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        return listed(INSTRUCTION.text, INVALID, "from to left")

    def expert(self, state: State) -> str:
        """The middle of what is possible."""
        least, most = state.possible
        return f"guess {(least + most) // 2}"

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Any number of the range, whatever was said."""
        return f"guess {int(rng.integers(state.least, state.most + 1))}"

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        """The difficulty is the number of guesses that halving needs."""
        starts = (
            self.start(split, i) for i in range(self.train if split == "train" else self.test)
        )
        spans = (needed(state.most - state.least + 1) for state in starts)
        return listed_tasks(self, split, INSTRUCTION, spans)

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes range and secret."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, f"from {state.least} to {state.most} {state.left} left")

    async def step(self, state: State, action: str) -> Step:
        """What is no guess takes none. `info` holds what was possible before, as the anchor."""
        refuse_if_over(state.over)
        said = action_of(action).lower()
        if said == GIVE_UP:
            return given_up(state)
        match = _GUESS.fullmatch(said)
        info = {"anchor": (*state.possible, state.left), "valid": match is not None}
        if match is None:
            return Step(state, f"{INVALID} {state.left} left", self.wrong, info=info)
        guess = int(match[1])
        guessed = replace(state, guesses=(*state.guesses, guess), left=state.left - 1)
        if guess == state.secret:
            return Step(replace(guessed, over=True), "right", 1.0, End.SOLVED, info)
        if not guessed.left:
            lost = f"no guess left, the secret was {state.secret}"
            return Step(replace(guessed, over=True), lost, self.wrong, End.FAILED, info)
        told = "higher" if guess < state.secret else "lower"
        return Step(guessed, f"{told} {guessed.left} left", self.wrong, info=info)

    async def fork(self, state: State) -> State:
        return state
