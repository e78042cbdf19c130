"""Rules that answer without any idea of the function. Report them beside every score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ludus.evals.mir_bench.problems import Problem, Shot


def most_common(shots: Sequence[Shot], x: str) -> str:
    return Counter(output for _, output in shots).most_common(1)[0][0]


def nearest(shots: Sequence[Shot], x: str) -> str:
    """The output of the shot whose input has the least edit distance to x, the first of equals."""
    return min(shots, key=lambda shot: edit_distance(shot[0], x))[1]


def copied(shots: Sequence[Shot], x: str) -> str:
    return x


TRIVIAL: tuple[Callable[[Sequence[Shot], str], str], ...] = (most_common, nearest, copied)


def edit_distance(a: str, b: str) -> int:
    """Levenshtein: fewest insertions, deletions and replacements of one character."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def trivial_accuracy(problem: Problem, shots: int) -> dict[str, float]:
    """Share of the tests that each trivial rule answers right from the first `shots` shots."""
    told = problem.shots[:shots]
    return {
        rule.__name__: float(np.mean([rule(told, x) == output for x, output in problem.tests]))
        for rule in TRIVIAL
    }
