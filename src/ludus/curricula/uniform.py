"""Every task once, in a new order each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ludus.types import Group, Key, Task


@dataclass(frozen=True)
class Uniform:
    """Draws without replacement; an epoch's order depends on its number alone. State: how many have been drawn."""

    def init(self, tasks: Sequence[Task]) -> int:
        if not tasks:
            raise ValueError("there are no training tasks; env.tasks('train') returned none")
        return 0

    def draw(
        self, state: int, tasks: Sequence[Task], count: int, key: Key
    ) -> tuple[int, list[Task]]:
        drawn: list[Task] = []
        while len(drawn) < count:
            epoch, place = divmod(state + len(drawn), len(tasks))
            order = (Key(key.seed) / "epoch" / epoch).generator().permutation(len(tasks))
            drawn += [tasks[i] for i in order[place : place + count - len(drawn)]]
        return state + count, drawn

    def update(self, state: Any, groups: Sequence[Group]) -> Any:
        return state
