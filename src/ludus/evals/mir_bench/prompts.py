"""What a model is shown: instruction, shots, the input to predict for; and the shots of the two ablations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ludus.envs.world import one_of
from ludus.evals.mir_bench.problems import Shot

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
