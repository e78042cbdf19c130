"""An answer by somebody else in every group: RL-PLUS, arXiv:2508.00222; LUFFY, arXiv:2504.14945.

A curriculum knows texts and no tokens, so it asks for two things: some answers of the policy's own, and one attempt at
the same task that carries its answer with it. `rollouts.with_examples` makes the second out of its text with the
policy's own renderer, plays it in the same world, and so it earns what it is worth. `select` makes one group of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ludus.curricula.adaptive import only_tasks
from ludus.curricula.uniform import Uniform
from ludus.types import Curriculum, Group, Key, Request, Task

EXAMPLE = "example"  # of a task's extras: the text that somebody else answers with


@dataclass(frozen=True)
class Examples:
    """Every drawn task is attempted `answers` times, and answered once by `text(task)`.

    text     task -> what somebody else says; for worlds that know their answers, task.answer
    inner    draws the tasks; it is told of the policy's own answers alone

    `select` wants one group a request, in the order in which they were asked. State: the inner one's.
    """

    text: Callable[[Task], str]
    answers: int = 7
    inner: Curriculum = field(default_factory=Uniform)

    needs = ("example",)

    def __post_init__(self) -> None:
        if self.answers < 1:
            raise ValueError(f"answers={self.answers}; give 1 or more of the policy's own")

    def init(self, tasks: Sequence[Task]) -> Any:
        return self.inner.init(tasks)

    def draw(
        self, state: Any, tasks: Sequence[Task], count: int, key: Key
    ) -> tuple[Any, list[Request]]:
        state, drawn = self.inner.draw(state, tasks, count, key)
        asked: list[Request] = []
        for task in only_tasks(drawn):
            told = replace(task, extras={**task.extras, EXAMPLE: self.text(task)})
            # the loop fills in the turns of this step's horizon and the seed of the task's world
            asked += [Request(task, self.answers, max_turns=0), Request(told, 1, max_turns=0)]
        return state, asked

    def select(self, state: Any, groups: Sequence[Group]) -> list[Group]:
        """One group a task: the policy's own answers, then the example."""
        return [
            Group(own.key, own.rollouts + example.rollouts)
            for own, example in zip(groups[::2], groups[1::2], strict=True)
        ]

    def update(self, state: Any, groups: Sequence[Group]) -> Any:
        return self.inner.update(state, groups[::2])
