"""A function with calls to learn from and calls to be tested on, and what a search over programs makes of it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from ludus.evals.mir_bench.functions import Function, draw_input, functions
from ludus.types import Key

Shot = tuple[str, str]
"""Input and output as text, lists and numbers in Python's form, text without quotes."""


@dataclass(frozen=True)
class Problem:
    """A function, calls of it with different inputs in a fixed order, and harder calls that are not among them."""

    function: Function
    shots: tuple[Shot, ...]
    tests: tuple[Shot, ...]

    def value(self, x: str) -> Any:
        """An input as the function takes it."""
        return x if self.function.takes == "text" else ast.literal_eval(x)


@dataclass(frozen=True)
class Filters:
    """Published: 20,000 calls must give 4,096 different inputs, and no text may be longer than 128 characters."""

    calls: int = 20_000
    shots: int = 4096
    tests: int = 10
    characters: int = 128


def make_problem(function: Function, key: Key, filters: Filters) -> Problem:
    """Calls without repeated inputs, at most those asked for; the filters are not applied yet."""
    rng = (key / function.name).generator()
    shots: dict[str, str] = {}
    for _ in range(filters.calls):
        x = draw_input(function.takes, rng)
        shots[str(x)] = str(function(x))
    tests: dict[str, str] = {}
    for _ in range(10 * filters.tests):
        x = draw_input(function.takes, rng, harder=True)
        if str(x) not in shots and len(tests) < filters.tests:
            tests[str(x)] = str(function(x))
    return Problem(function, tuple(shots.items()), tuple(tests.items()))


def candidates(problem: Problem, shots: int, depth: int) -> list[Function]:
    """The functions of up to `depth` primitives that agree with the first `shots` shots."""
    alive = list(functions(problem.function.takes, depth))
    for text, output in problem.shots[:shots]:
        x = problem.value(text)
        alive = [f for f in alive if str(f(x)) == output]
    return alive


def search_answers(problem: Problem, shots: int, depth: int) -> list[str | None]:
    """For each test, the output on which all candidates agree; None where they do not.

    The true function is always among them, so an answer is never wrong and, once given, stays: more clean shots never
    lower the accuracy.
    """
    alive = candidates(problem, shots, depth)
    told = [{str(f(problem.value(x))) for f in alive} for x, _ in problem.tests]
    return [next(iter(outputs)) if len(outputs) == 1 else None for outputs in told]
