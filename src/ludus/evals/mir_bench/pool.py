"""Which functions are kept. The published funnel is 2998 -> 1408 -> 693 or 300; here it is

    drawn -> behaves differently -> has enough different shots -> is short enough -> many shots help

The last filter keeps a function if a search over all compositions needs more than four shots, and at most 64, to be
sure of the tests, and if no trivial rule answers more than half of them. (The published one regresses the gain from
shots on six features, with coefficients that are not released.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ludus.envs.world import Split, one_of, side
from ludus.evals.mir_bench.functions import Kind, behaviour, functions
from ludus.evals.mir_bench.problems import Filters, Problem, make_problem, search_answers
from ludus.evals.mir_bench.trivial import trivial_accuracy
from ludus.types import Key

STAGES = ("drawn", "different", "enough shots", "short enough", "many shots help")


@dataclass(frozen=True)
class Pool:
    """Problems of one split, and how many functions passed each filter on the way to them."""

    problems: tuple[Problem, ...]
    funnel: Mapping[str, int]


def pool(
    split: Split, size: int, *, depth: int = 4, filters: Filters | None = None, seed: int = 0
) -> Pool:
    """`size` problems whose functions behave like none of the other split."""
    filters = filters or Filters()
    key = Key(seed, ("mir-bench", "pool", split))
    rng = key.generator()
    funnel: dict[str, int] = dict.fromkeys(STAGES, 0)
    seen: set[tuple[str, ...]] = set()
    kept: list[Problem] = []
    kinds: tuple[Kind, ...] = ("number", "text", "list")
    while len(kept) < size:
        if funnel["drawn"] >= 1000 * size:
            raise ValueError(
                f"{funnel['drawn']} draws gave {len(kept)} of {size} problems; ask for fewer"
            )
        of_depth = functions(kinds[rng.integers(3)], int(rng.integers(1, depth + 1)))
        function = one_of(rng, of_depth)
        behaves = behaviour(function)
        if side(behaves) != split:
            continue
        funnel["drawn"] += 1
        if behaves in seen:
            continue
        seen.add(behaves)
        funnel["different"] += 1
        problem = make_problem(function, key, filters)
        if len(problem.shots) < filters.shots or len(problem.tests) < filters.tests:
            continue
        funnel["enough shots"] += 1
        texts = (text for shot in (*problem.shots, *problem.tests) for text in shot)
        if max(map(len, texts)) > filters.characters:
            continue
        funnel["short enough"] += 1
        if many_shots_help(problem, depth):
            funnel["many shots help"] += 1
            kept.append(problem)
    return Pool(tuple(kept), funnel)


def many_shots_help(problem: Problem, depth: int) -> bool:
    """Four shots leave the search in doubt, 64 do not, and no trivial rule answers more than half from those."""
    doubt = None in search_answers(problem, 4, depth)
    if not doubt or None in search_answers(problem, 64, depth):
        return False
    return max(trivial_accuracy(problem, 64).values()) <= 0.5


class Source(Protocol):
    """Where a study's problems come from. `search` is the best that can be known: None where shots leave it open."""

    def __call__(self, seed: int) -> Pool: ...
    def search(self, problem: Problem, shots: int) -> Sequence[str | None]: ...


@dataclass(frozen=True)
class Generated:
    """Held-out problems of the generated pool."""

    size: int = 8
    depth: int = 3
    filters: Filters = field(default_factory=Filters)

    def __call__(self, seed: int) -> Pool:
        return pool("test", self.size, depth=self.depth, filters=self.filters, seed=seed)

    def search(self, problem: Problem, shots: int) -> Sequence[str | None]:
        return search_answers(problem, shots, self.depth)
