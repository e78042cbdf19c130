"""Learn from the tasks that are neither solved by all attempts nor by none: SRPO's filter, arXiv:2506.01713."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ludus.curricula.uniform import Uniform
from ludus.types import Curriculum, Group, Key, Request, Task


@dataclass(frozen=True)
class Within:
    """`inner`, but a step learns only from groups whose share of solved attempts lies in [low, high].

    Where a step has none, it learns from all: their rewards may still differ. Lost attempts are not counted. The state
    is that of `inner`, which sees every group.
    """

    low: float = 0.1
    high: float = 0.9
    inner: Curriculum = field(default_factory=Uniform)

    needs = ("group",)

    def init(self, tasks: Sequence[Task]) -> Any:
        return self.inner.init(tasks)

    def draw(
        self, state: Any, tasks: Sequence[Task], count: int, key: Key
    ) -> tuple[Any, Sequence[Task | Request]]:
        return self.inner.draw(state, tasks, count, key)

    def select(self, state: Any, groups: Sequence[Group]) -> list[Group]:
        return [group for group in groups if self._between(group)] or list(groups)

    def update(self, state: Any, groups: Sequence[Group]) -> Any:
        return self.inner.update(state, groups)

    def _between(self, group: Group) -> bool:
        scored = [rollout.solved for rollout in group.rollouts if rollout.end.scorable]
        return bool(scored) and self.low <= sum(scored) / len(scored) <= self.high
