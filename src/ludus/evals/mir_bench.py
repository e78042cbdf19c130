"""MIR-Bench, arXiv:2502.09933: induction from many shots. Given k calls of an unknown function, predict one more.

The published functions come from code benchmarks. Here they are compositions of 30 small primitives over numbers, text
and lists, drawn, filtered and answered by program:

    drawn -> behaves differently -> has enough different shots -> is short enough -> many shots help

The last filter keeps a function if a search over all compositions needs more than four shots, and at most 64, to be
sure of the tests, and if no trivial rule (`TRIVIAL`) answers more than half of them. Report
those rules beside every score.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import numpy as np

from ludus.envs.world import Split, one_of, place_of, refuse_if_over, side
from ludus.types import End, Key, Step, Task

# ---------------------------------------------------------------------------------------------- functions

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


# ---------------------------------------------------------------------------------------------- problems

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


# ---------------------------------------------------------------------------------------------- trivial rules


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


# ---------------------------------------------------------------------------------------------- the pool


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


# ---------------------------------------------------------------------------------------------- prompts

LEVELS = tuple(2**power for power in range(2, 12))  # 4, 8 ... 2048 shots
RATES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)  # of wrong shots
COPIES = (0, 16, 48, 112, 240, 496, 1008)  # of one of 16 shots
NEVER_SHOWN = 8192  # shots from here on only lend their outputs to wrong shots

TASK = "An unknown function turns inputs into outputs. Predict its output for the last input. "
FREE = "End with 'Output: ' and your answer in Python's form."
THINK = "First write 'Analysis: ' and how you find it. End with 'Output: ' and your answer in Python's form."
DIRECT = "Write only 'Output: ' and your answer in Python's form."
AWARE = " Some of the examples are wrong."


def prompt(shots: Sequence[Shot], x: str, ask: str = FREE) -> str:
    """Instruction, shots, and the input to predict for. `ask` is FREE, THINK or DIRECT, with or without a warning."""
    examples = "".join(f"Input:{given}\nOutput:{output}\n" for given, output in shots)
    return f"{TASK}{ask}\n{examples}Input:{x}"


def wrong_of(shots: int, rate: float) -> int:
    return int(rate * shots)


def with_wrong(
    shots: Sequence[Shot], rate: float, spare: Sequence[str], rng: np.random.Generator
) -> list[Shot]:
    """The shots with a share of wrong outputs, each drawn from `spare` until it differs from the right one.

    spare  outputs of calls that are never shown, `problem.shots[NEVER_SHOWN:]`
    """
    made = list(shots)
    for place in rng.permutation(len(made))[: wrong_of(len(made), rate)]:
        x, right = made[place]
        if all(output == right for output in spare):
            raise ValueError(f"no spare output differs from {right!r}; give outputs of more calls")
        wrong = right
        while wrong == right:
            wrong = one_of(rng, spare)
        made[place] = (x, wrong)
    return made


def with_copies(shots: Sequence[Shot], copies: int, rng: np.random.Generator) -> list[Shot]:
    """The shots and so many copies of one of them, shuffled; 0 copies leaves their order."""
    if not copies:
        return list(shots)
    made = [*shots, *[one_of(rng, shots)] * copies]
    return [made[place] for place in rng.permutation(len(made))]


# ---------------------------------------------------------------------------------------------- scores


def answer_of(text: str) -> str | None:
    """What follows the last "Output:", without bold and code fences; None if there is no such word."""
    _, marker, said = text.rpartition("utput:")
    if not marker:
        return None
    said = said.replace("```python", "").replace("```", "").strip()
    return said.removeprefix("**").removesuffix("**").strip()


def strict(text: str, gold: str) -> bool:
    """Exactly the gold text. The published scores are of this rule, whatever their script says (it lacks an import)."""
    return answer_of(text) == gold.strip()


LONGEST = 10_000  # characters of an answer that is worth parsing


def lenient(text: str, gold: str) -> bool:
    """Strict, or a Python literal that prints as the gold text, out of a dict or set of one if need be."""
    answer = answer_of(text)
    if answer is None or len(answer) > LONGEST:
        return False
    if answer == gold.strip():
        return True
    try:
        value = ast.literal_eval(answer)
        if isinstance(value, dict) and len(value) == 1:
            value = next(iter(value.values()))
        if isinstance(value, set) and len(value) == 1:
            value = next(iter(value))
        return str(value) == gold.strip()
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False  # what a model wrote is no literal


# ---------------------------------------------------------------------------------------------- as an environment


@dataclass(frozen=True)
class State:
    text: str = field(repr=False)
    gold: str
    over: bool = False


@dataclass(frozen=True)
class ManyShots:
    """Every problem with every number of shots and every test, one turn each; difficulty is the number of shots.

    problems  split -> problems, from `pool`
    shots     numbers of shots; a longer prompt begins with the shots of the shorter one
    """

    problems: dict[Split, tuple[Problem, ...]] = field(repr=False)
    shots: tuple[int, ...] = (4, 8, 16, 32)
    ask: str = FREE
    lenient: bool = False
    name: str = "mir-bench"

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        made = []
        for problem in self.problems[split]:
            for shots in self.shots:
                for _, gold in problem.tests:
                    index = len(made)
                    made.append(
                        Task(
                            id=f"{self.name}-{split}-{index}",
                            answer=gold,
                            env=self.name,
                            difficulty=shots,
                            domain=problem.function.takes,
                            extras={
                                "split": split,
                                "index": index,
                                "function": problem.function.name,
                            },
                        )
                    )
        return made

    def start(self, split: Split, index: int) -> State:
        tests = len(self.problems[split][0].tests)
        before, test = divmod(index, tests)
        which, level = divmod(before, len(self.shots))
        problem = self.problems[split][which]
        x, gold = problem.tests[test]
        return State(prompt(problem.shots[: self.shots[level]], x, self.ask), gold)

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes shots and test."""
        sizes: dict[Split, int] = {
            split: len(problems) * len(self.shots) * (len(problems[0].tests) if problems else 0)
            for split, problems in self.problems.items()
        }
        state = self.start(*place_of(self, task, sizes))
        return Step(state, state.text)

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        right = (lenient if self.lenient else strict)(action, state.gold)
        info = {"parsed": answer_of(action) is not None}
        after, end = replace(state, over=True), End.SOLVED if right else End.FAILED
        return Step(after, "right" if right else "wrong", float(right), end, info)

    async def fork(self, state: State) -> State:
        return state
