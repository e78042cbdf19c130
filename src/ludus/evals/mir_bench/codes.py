"""Functions that a tiny model can learn to induce: a letter, which stays, and a digit, exchanged by a table.

The table is drawn from 10! ones, so it can only be known from the shots, digit by digit: after four shots most digits
are new, after 32 hardly any. That the letter stays must be seen too: in the functions that the model is trained on
(ludus.models.shots_base) letters are mostly exchanged as well. Shots prefer three letters and three digits; tests do
not, which makes them harder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ludus.envs.world import side
from ludus.evals.mir_bench.functions import Function, Primitive
from ludus.evals.mir_bench.pool import Pool
from ludus.evals.mir_bench.problems import Problem, Shot
from ludus.types import Key

LETTERS, DIGITS = "abcdefghij", "0123456789"
FAVOURITES = 3  # of each kind; half of the symbols of the shots are one of them


def code(letters: str, digits: str) -> Function:
    """Exchanges the n-th letter for `letters[n]` and the digit n for `digits[n]`."""
    source = f"{letters!r}[{LETTERS!r}.index(x[0])] + {digits!r}[int(x[1])]"
    return Function((Primitive(f"code {letters} {digits}", "text", "text", source),))


def table(symbols: str, moved: int, rng: np.random.Generator) -> str:
    """The symbols with so many of them exchanged among each other."""
    made = list(symbols)
    places = rng.permutation(len(symbols))[:moved]
    for place, other in zip(places, rng.permutation(places), strict=True):
        made[place] = symbols[other]
    return "".join(made)


def problem(function: Function, rng: np.random.Generator, shots: int = 90) -> Problem:
    """Ten tests, and so many shots with other inputs."""
    every = [letter + digit for letter in LETTERS for digit in DIGITS]
    tests = [every[place] for place in rng.permutation(len(every))[:10]]
    liked = [rng.permutation(10)[:FAVOURITES] for _ in range(2)]
    shown: dict[str, None] = {}
    while len(shown) < shots:
        letter, digit = (
            int(mine[rng.integers(FAVOURITES)]) if rng.random() < 0.5 else int(rng.integers(10))
            for mine in liked
        )
        if (x := LETTERS[letter] + DIGITS[digit]) not in tests:
            shown[x] = None
    told, asked = (tuple((x, function(x)) for x in some) for some in (shown, tests))
    return Problem(function, told, asked)


@dataclass(frozen=True)
class Codes:
    """`size` held-out functions, each with 90 shots and the 10 other inputs as tests.

    letters  whether these are exchanged too
    """

    size: int = 12
    letters: bool = False

    def __call__(self, seed: int) -> Pool:
        rng = Key(seed, ("mir-bench", "codes")).generator()
        funnel = {"drawn": 0, "held out": 0}
        problems: list[Problem] = []
        while len(problems) < self.size:
            funnel["drawn"] += 1
            letters = table(LETTERS, 10, rng) if self.letters else LETTERS
            function = code(letters, table(DIGITS, 10, rng))
            if side(function.name) == "test":
                problems.append(problem(function, rng))
        funnel["held out"] = len(problems)
        return Pool(tuple(problems), funnel)

    def search(self, problem: Problem, shots: int) -> Sequence[str | None]:
        """The output where letter and digit were both shown: that letters stay is not known here, nor is it used that
        the tenth of ten is left over."""
        return [looked_up(problem.shots[:shots], x) for x, _ in problem.tests]


def looked_up(shots: Sequence[Shot], x: str) -> str | None:
    """What the shots say of each symbol of the input; None if one of them was not shown."""
    said = [dict(zip(given, output, strict=True)) for given, output in shots]
    each = {symbol: out for one in said for symbol, out in one.items()}
    return "".join(each[symbol] for symbol in x) if set(x) <= each.keys() else None
