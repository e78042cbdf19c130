"""The functions of the generated pool: 30 primitives over numbers, text and lists, and their compositions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import numpy as np

from ludus.types import Key

Kind = Literal["number", "text", "list"]


class Primitive(NamedTuple):
    """One step of a function. `source` is a Python expression in x, the only definition of what it does."""

    name: str
    takes: Kind
    gives: Kind
    source: str


PRIMITIVES = (
    Primitive("double", "number", "number", "x * 2"),
    Primitive("negate", "number", "number", "-x"),
    Primitive("next", "number", "number", "x + 1"),
    Primitive("square", "number", "number", "x * x"),
    Primitive("last digit", "number", "number", "abs(x) % 10"),
    Primitive("digit sum", "number", "number", "sum(int(d) for d in str(abs(x)))"),
    Primitive("digits turned", "number", "number", "int(str(abs(x))[::-1])"),
    Primitive("collatz", "number", "number", "x // 2 if x % 2 == 0 else 3 * x + 1"),
    Primitive("written", "number", "text", "str(x)"),
    Primitive("digits", "number", "list", "[int(d) for d in str(abs(x))]"),
    Primitive("upper", "text", "text", "x.upper()"),
    Primitive("swap case", "text", "text", "x.swapcase()"),
    Primitive("turned", "text", "text", "x[::-1]"),
    Primitive("letters sorted", "text", "text", "''.join(sorted(x))"),
    Primitive("every second", "text", "text", "x[::2]"),
    Primitive("first half", "text", "text", "x[: len(x) // 2]"),
    Primitive("no vowels", "text", "text", "''.join(c for c in x if c not in 'aeiouAEIOU')"),
    Primitive("length", "text", "number", "len(x)"),
    Primitive("vowels", "text", "number", "sum(c in 'aeiouAEIOU' for c in x)"),
    Primitive("places", "text", "list", "[ord(c.lower()) - 96 for c in x]"),
    Primitive("sorted", "list", "list", "sorted(x)"),
    Primitive("reversed", "list", "list", "x[::-1]"),
    Primitive("evens", "list", "list", "[y for y in x if y % 2 == 0]"),
    Primitive("doubled", "list", "list", "[2 * y for y in x]"),
    Primitive("running sums", "list", "list", "list(accumulate(x))"),
    Primitive("rest", "list", "list", "x[1:]"),
    Primitive("rising", "list", "list", "x[::-1] if x and x[0] > x[-1] else x"),
    Primitive("sum", "list", "number", "sum(x)"),
    Primitive("highest", "list", "number", "max(x, default=0)"),
    Primitive("count", "list", "number", "len(x)"),
)


@cache
def _compiled(source: str) -> Callable[[Any], Any]:
    return eval(
        f"lambda x: {source}", {"accumulate": accumulate}
    )  # the expressions above and no others


@dataclass(frozen=True)
class Function:
    """Primitives one after the other; each takes what the one before gives."""

    steps: tuple[Primitive, ...]

    def __call__(self, x: Any) -> Any:
        for step in self.steps:
            x = _compiled(step.source)(x)
        return x

    @property
    def takes(self) -> Kind:
        return self.steps[0].takes

    @property
    def name(self) -> str:
        return ", ".join(step.name for step in self.steps)

    @property
    def source(self) -> str:
        """One Python expression in x for the whole function: a second way to its outputs."""
        expression = "x"
        for step in self.steps:
            expression = re.sub(r"\bx\b", lambda _, e=expression: f"({e})", step.source)
        return expression


@cache
def functions(takes: Kind, depth: int) -> tuple[Function, ...]:
    """All compositions of up to `depth` primitives that take this kind, short ones first: 10, 110, 1,110, 11,110."""
    level = [Function((p,)) for p in PRIMITIVES if p.takes == takes]
    found = list(level)
    for _ in range(depth - 1):
        level = [
            Function((*f.steps, p))
            for f in level
            for p in PRIMITIVES
            if p.takes == f.steps[-1].gives
        ]
        found += level
    return tuple(found)


def behaviour(function: Function) -> tuple[str, ...]:
    """Outputs on fixed inputs: functions that differ in none of these are taken for the same."""
    rng = Key(0, ("mir-bench", "probe", function.takes)).generator()
    return tuple(str(function(draw_input(function.takes, rng))) for _ in range(32))


def draw_input(kind: Kind, rng: np.random.Generator, *, harder: bool = False) -> Any:
    """An input for a shot, or a harder one for a test: longer text and lists, larger numbers."""
    if kind == "number":
        return int(rng.integers(-9999, 10_000)) * (11 if harder else 1)
    if kind == "text":
        letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        places = rng.integers(len(letters), size=rng.integers(*((7, 13) if harder else (3, 9))))
        return "".join(letters[place] for place in places)
    size, bound = (rng.integers(6, 11), 999) if harder else (rng.integers(3, 7), 99)
    return [int(y) for y in rng.integers(-bound, bound + 1, size=size)]
