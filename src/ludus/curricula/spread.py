"""Learn only from groups whose rewards differ enough, by a bar that moves. RLPR, arXiv:2506.18254.

`weights.spread.SpreadFilter` as a curriculum: it draws as another one does and drops groups after they were scored.
The paper generates more until the batch is full; here a step with dropped groups is a smaller step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import stdev
from typing import Any

from ludus.curricula.uniform import Uniform
from ludus.types import Curriculum, Group, Key, Request, Task
from ludus.weights.spread import SpreadFilter


@dataclass(frozen=True)
class Spread:
    """State: {"inner", "bar"}. Where every group would be dropped all are kept, so that no step is empty.

    Groups of which faults left fewer than two rewards have no deviation, and do not move the bar.
    """

    bar: SpreadFilter = field(default_factory=SpreadFilter)
    inner: Curriculum = field(default_factory=Uniform)

    needs = ("group",)

    def init(self, tasks: Sequence[Task]) -> dict[str, Any]:
        return {"inner": self.inner.init(tasks), "bar": self.bar.init()}

    def draw(
        self, state: dict[str, Any], tasks: Sequence[Task], count: int, key: Key
    ) -> tuple[dict[str, Any], Sequence[Task | Request]]:
        inner, drawn = self.inner.draw(state["inner"], tasks, count, key)
        return {**state, "inner": inner}, drawn

    def select(self, state: dict[str, Any], groups: Sequence[Group]) -> list[Group]:
        keeps = self.bar.keeps(state["bar"], [deviation(group) for group in groups])
        return [g for g, keep in zip(groups, keeps, strict=True) if keep] or list(groups)

    def update(self, state: dict[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
        bar = self.bar.update(state["bar"], [deviation(g) for g in groups if len(_scored(g)) > 1])
        return {"inner": self.inner.update(state["inner"], groups), "bar": bar}


def deviation(group: Group) -> float:
    """Unbiased, of the rewards that were scored; 0 for one."""
    rewards = _scored(group)
    return stdev(rewards) if len(rewards) > 1 else 0.0


def _scored(group: Group) -> list[float]:
    return [rollout.reward for rollout in group.rollouts if rollout.end.scorable]
