"""By difficulty, in a fixed order: what a curriculum that chooses for itself is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ludus.types import Group, Key, Task


@dataclass(frozen=True)
class Ordered:
    """One walk through the tasks, from the easiest to the hardest, in `draws` draws; the last one stays.

    draws          of a whole run: its steps times its tasks
    hardest_first  walk the other way

    Tasks of one difficulty come in an order of the seed's. Where there are more tasks than draws the walk passes over
    some, evenly; where there are fewer it repeats some. State: how many have been drawn.
    """

    draws: int
    hardest_first: bool = False

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws={self.draws}; give the steps of a run times its tasks")

    def init(self, tasks: Sequence[Task]) -> int:
        if not tasks:
            raise ValueError("there are no training tasks; env.tasks('train') returned none")
        return 0

    def draw(
        self, state: int, tasks: Sequence[Task], count: int, key: Key
    ) -> tuple[int, list[Task]]:
        shuffled = (Key(key.seed) / "ordered").generator().permutation(len(tasks))
        sign = -1 if self.hardest_first else 1
        order = sorted(shuffled, key=lambda i: sign * tasks[i].difficulty)
        places = [
            min(n, self.draws - 1) * len(tasks) // self.draws for n in range(state, state + count)
        ]
        return state + count, [tasks[order[place]] for place in places]

    def update(self, state: Any, groups: Sequence[Group]) -> Any:
        return state
