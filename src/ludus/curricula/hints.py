"""A hint where every attempt failed, and one attempt that stays without it. NuRL, arXiv:2509.25666.

A task that no answer solves teaches nothing. It is asked once more, with an abstract hint, written
beforehand from the right answer (data.hints): G - 1 answers with the hint and one without form the
new group. The plain one is there so that a hint which makes all answers right still leaves
something to compare, at a price: seven right and the plain one wrong give it alone -2.475. Every
answer is learnt from under the prompt that it was sampled from, and evaluation never sees a hint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ludus.curricula.adaptive import only_tasks
from ludus.curricula.uniform import Uniform
from ludus.types import Curriculum, Group, Key, Message, Request, Rollout, Task


@dataclass(frozen=True)
class Hints:
    """A curriculum that asks a task once more where all failed, if there is a hint for it.

    hints      id of a task -> hint
    answers    of a group, with and without hint alike
    inner      draws the tasks
    threshold  a reward above it is a success

    A group with a success is left as it is, and none is tried a third time. `more` and `select`
    want one group a request, in the order in which they were asked.
    State: {"inner", "failed": places of the retried among the first groups, "first": how many}.
    """

    hints: Mapping[str, str] = field(repr=False)
    answers: int = 8
    inner: Curriculum = field(default_factory=Uniform)
    threshold: float = 0.0

    needs = ("guidance",)

    def __post_init__(self) -> None:
        if self.answers < 2:
            raise ValueError(f"answers={self.answers}; give 2 or more, one of them is plain")

    def init(self, tasks: Sequence[Task]) -> dict[str, Any]:
        return {"inner": self.inner.init(tasks), "failed": [], "first": 0}

    def draw(
        self, state: dict[str, Any], tasks: Sequence[Task], count: int, key: Key
    ) -> tuple[dict[str, Any], list[Request]]:
        inner, drawn = self.inner.draw(state["inner"], tasks, count, key)
        # the loop fills in the turns of this step's horizon and the seed of the task's world
        asked = [Request(task, self.answers, max_turns=0) for task in only_tasks(drawn)]
        return {"inner": inner, "failed": [], "first": len(asked)}, asked

    def more(
        self, state: dict[str, Any], groups: Sequence[Group]
    ) -> tuple[dict[str, Any], list[Request]]:
        """For every group that failed whole: the hinted answers, and the plain one."""
        if len(groups) > state["first"]:
            return state, []
        failed = [
            place
            for place, group in enumerate(groups)
            if group.key in self.hints and self._failed(group)
        ]
        asked: list[Request] = []
        for place in failed:
            task, hint = groups[place].rollouts[0].task, self.hints[groups[place].key]
            guidance = (hint_message(hint),)
            asked.append(Request(task, self.answers - 1, max_turns=0, guidance=guidance))
            asked.append(Request(task, 1, max_turns=0))
        return {**state, "failed": failed}, asked

    def select(self, state: dict[str, Any], groups: Sequence[Group]) -> list[Group]:
        """The groups to learn from: where there was a second try, that one alone, as one group."""
        chosen, again = list(groups[: state["first"]]), groups[state["first"] :]
        for place, with_hint, plain in zip(state["failed"], again[::2], again[1::2], strict=True):
            chosen[place] = Group(chosen[place].key, with_hint.rollouts + plain.rollouts)
        return chosen

    def update(self, state: dict[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
        return {**state, "inner": self.inner.update(state["inner"], groups)}

    def _failed(self, group: Group) -> bool:
        scored = [rollout for rollout in group.rollouts if rollout.end.scorable]
        return bool(scored) and all(rollout.reward <= self.threshold for rollout in scored)


def hint_message(hint: str) -> Message:
    return Message("user", f"Hint: {hint}")


def hinted(rollout: Rollout, hint: str) -> bool:
    """Whether a rollout was sampled under the hint: told by its opening, which is what it really read."""
    return hint_message(hint) in rollout.opening
