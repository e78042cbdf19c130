"""Start from the beginnings of one's own best answers: the first stage of ReST-RL, arXiv:2508.19576.

A round collects own answers to some problems and makes start states of them (`search.prefixes.start_states`): the
prompt of every problem whose answers differ in reward and, if the best one is good, beginnings of it. Steps then go
once through the states, the last one with those that are left over; the next round collects with the weights of then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ludus.curricula.adaptive import only_tasks
from ludus.curricula.uniform import Uniform
from ludus.rollouts.continued import BEGUN, begun_by
from ludus.search.prefixes import start_states
from ludus.types import Curriculum, Group, Key, Request, Task


@dataclass(frozen=True)
class PartialSolutions:
    """What is collected is paid for (it counts in a budget) and not learnt from.

    problems    of a round, each answered `samples` times
    answers     to each start state
    least_std   of the rewards of a problem that is kept (population)
    least_best  reward from which an answer is good enough for beginnings of it to be taken
    alpha, beta ceil(beta L) of its L beginnings, the one of i + 1 lines with weight alpha^i
    inner       draws the problems

    State: {"inner", "key" of the draw, "states": [[id, beginning] ...], "collected": groups of this step that were}.
    Where a round keeps no problem, its own groups are learnt from, which are nearly even.
    """

    problems: int = 64
    samples: int = 8
    answers: int = 8
    least_std: float = 0.05
    least_best: float = 0.9
    alpha: float = 0.95
    beta: float = 0.5
    inner: Curriculum = field(default_factory=Uniform)

    needs = (BEGUN,)

    def __post_init__(self) -> None:
        if min(self.problems, self.samples, self.answers) < 1:
            raise ValueError(
                f"problems={self.problems}, samples={self.samples}, answers={self.answers}; give 1 or more of each"
            )

    def init(self, tasks: Sequence[Task]) -> dict[str, Any]:
        return {"inner": self.inner.init(tasks), "key": 0, "states": [], "collected": 0, "count": 0}

    def draw(
        self, state: dict[str, Any], tasks: Sequence[Task], count: int, key: Key
    ) -> tuple[dict[str, Any], list[Request]]:
        """The next `count` start states; where there are none, problems to make some from."""
        if state["states"]:
            return self._next({**state, "collected": 0}, {t.id: t for t in tasks}, count)
        inner, drawn = self.inner.draw(state["inner"], tasks, self.problems, key)
        # the loop fills in the turns of this step's horizon and the seed of the task's world
        asked = [Request(task, self.samples, max_turns=0) for task in only_tasks(drawn)]
        after = {"inner": inner, "key": key.integer(), "states": [], "count": count}
        return {**after, "collected": len(asked)}, asked

    def more(
        self, state: dict[str, Any], groups: Sequence[Group]
    ) -> tuple[dict[str, Any], list[Request]]:
        """Behind a collection, the first of its start states."""
        if not state["collected"] or len(groups) > state["collected"]:
            return state, []
        key = Key(state["key"])
        states = [
            [group.key, begun]
            for group in groups
            for begun in self._beginnings(group, key / "states" / group.key)
        ]
        order = (key / "order").generator().permutation(len(states))
        known = {group.key: group.rollouts[0].task for group in groups}
        return self._next({**state, "states": [states[i] for i in order]}, known, state["count"])

    def select(self, state: dict[str, Any], groups: Sequence[Group]) -> list[Group]:
        return list(groups[state["collected"] :]) or list(groups)

    def update(self, state: dict[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
        return {**state, "inner": self.inner.update(state["inner"], groups)}

    def _beginnings(self, group: Group, key: Key) -> list[str]:
        scored = [r for r in group.rollouts if r.end.scorable and r.turns]
        if not scored:
            return []
        return start_states(
            "",
            [rollout.turns[-1].action for rollout in scored],
            [rollout.reward for rollout in scored],
            key,
            least_std=self.least_std,
            least_best=self.least_best,
            alpha=self.alpha,
            beta=self.beta,
        )

    def _next(
        self, state: dict[str, Any], known: dict[str, Task], count: int
    ) -> tuple[dict[str, Any], list[Request]]:
        left = state["states"]
        take = (
            count if len(left) >= 2 * count else len(left)
        )  # a rest would be a step of few groups
        now, later = left[:take], left[take:]
        asked = [Request(begun_by(known[name], begun), self.answers, 0) for name, begun in now]
        return {**state, "states": later}, asked
