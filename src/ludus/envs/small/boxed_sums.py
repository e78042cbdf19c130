"""Sums that are thought first and answered in a box, from a player who has learnt some additions wrong.

    2 + 3 + 1 + 4
     5 6 The final answer is: \\boxed{10}

The thought has the running sums but the last, so one addition is left for the answer. An answer that can be read from
its box and is wrong is worth a tenth of a right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ludus.envs.small.sums import State, Sums
from ludus.envs.world import Split, listed, place_of, refuse_if_over
from ludus.types import End, Key, Message, Step, Task

INSTRUCTION = Message("system", "Write every running sum but the last, and that one in a box.")
ENDS, OPENS, CLOSES = "The final answer is:", " \\boxed{", "}"


@dataclass(frozen=True)
class BoxedSums:
    """One turn a task.

    sums   draws the terms
    gaps   share of the additions (running sum, term) that the beginner gets wrong more often than not
    wrong  how often it gets such a one wrong, by one too much; the others it knows
    right  reward of the right answer; `form` that of any other in a box
    """

    sums: Sums = field(default_factory=lambda: Sums(terms=(3, 4)))
    gaps: float = 0.5
    wrong: float = 0.6
    right: float = 1.0
    form: float = 0.1
    name: str = "boxed sums"

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        return (*listed(INSTRUCTION.text, ENDS, "boxed", "right wrong"), *"+:\\{}")

    def expert(self, state: State) -> str:
        return written(state.sums)

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Goes on from its own mistakes."""
        said = [state.terms[0]]
        for term in state.terms[1:]:
            gap = Key(self.sums.seed, ("gap", said[-1], term)).generator().random() < self.gaps
            said.append(said[-1] + term + (gap and rng.random() < self.wrong))
        return written(said[1:])

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [
            replace(task, prompt=(INSTRUCTION,), env=self.name) for task in self.sums.tasks(split)
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the terms."""
        counts: dict[Split, int] = {"train": self.sums.train, "test": self.sums.test}
        state = self.sums.start(*place_of(self, task, counts))
        return Step(state, " + ".join(map(str, state.terms)))

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        after, found = replace(state, over=True), boxed(action)
        if found == str(state.sums[-1]):
            return Step(after, "right", self.right, End.SOLVED)
        return Step(after, "wrong", self.form if found else 0.0, End.FAILED)

    async def fork(self, state: State) -> State:
        return state


def written(sums: Sequence[int]) -> str:
    return "".join(f" {n}" for n in sums[:-1]) + f" {ENDS}{OPENS}{sums[-1]}{CLOSES}"


def boxed(text: str) -> str:
    """What stands in the last box, without spaces around it; "" if there is none, or it is not closed."""
    _, opened, inside = text.rpartition(OPENS.strip())
    answer, closed, _ = inside.partition(CLOSES)
    return answer.strip() if opened and closed else ""
