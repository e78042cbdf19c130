"""Ask again inside a step until enough answers are right and wrong. Reinforce-Ada, arXiv:2510.04996.

A task of success rate p gives a mixed group of n answers with probability 1 - p^n - (1 - p)^n: for
most hard tasks, none. Here a task is asked in rounds and leaves as soon as it has what a small
balanced group needs; the advantage is taken over *all* its answers (advantages.pool). With a
balanced group and the baseline p the expected update is c(p) n grad p,

    c(p) = ((1-p)^2 + p^2) / (2 p (1-p)),    c(1/2) = 1,    about 1 / (2p) for hard tasks

so hard and nearly solved tasks are amplified on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ludus.curricula.uniform import Uniform
from ludus.types import Curriculum, Group, Key, Request, Rollout, Task

Rule = Literal["balanced", "positive"]


def exits(right: int, wrong: int, *, keep: int, rule: Rule) -> bool:
    """Whether a task has been asked often enough: one right answer ("positive"), or half of `keep` each."""
    if rule == "positive":
        return right >= 1
    return right >= keep // 2 and wrong >= keep - keep // 2


def balanced(correct: Sequence[bool], keep: int) -> list[int]:
    """Which answers to keep, of those of a pool in the order of sampling: indices, the right ones first.

    The first keep // 2 right ones, wrong ones up to `keep`, then whichever side has more left. The
    order is that of sampling, never chance, so that nothing depends on what was left out.
    """
    right = [i for i, good in enumerate(correct) if good]
    wrong = [i for i, good in enumerate(correct) if not good]
    rights = min(keep // 2, len(right))
    wrongs = min(keep - rights, len(wrong))
    rights = min(keep - wrongs, len(right))
    return right[:rights] + wrong[:wrongs]


def pooled(groups: Sequence[Group]) -> list[Group]:
    """One group a task: the groups of the same key joined, in their order."""
    joined: dict[str, tuple[Rollout, ...]] = {}
    for group in groups:
        joined[group.key] = joined.get(group.key, ()) + group.rollouts
    return [Group(key, rollouts) for key, rollouts in joined.items()]


def only_tasks(drawn: Sequence[Task | Request]) -> list[Task]:
    """What an inner curriculum drew, for an outer one that says itself how often each task is asked."""
    tasks = [one for one in drawn if isinstance(one, Task)]
    if len(tasks) != len(drawn):
        raise ValueError(
            "the inner curriculum draws requests, and the outer one would overrule what they say; give an inner "
            "curriculum that draws tasks, such as Uniform() or Bandit()"
        )
    return tasks


@dataclass(frozen=True)
class Adaptive:
    """A curriculum that asks each task of a step for `ask` answers at a time, in up to `rounds` rounds.

    inner      draws the tasks
    keep       answers of a task that are learnt from (the paper's n)
    rule       when a task leaves: "balanced" (half of `keep` right, half wrong) or "positive" (one right)
    threshold  a reward above it is a right answer

    A round in which a task leaves is counted whole. Lost rollouts are neither right nor wrong.
    State: {"inner", "round"}.
    """

    inner: Curriculum = field(default_factory=Uniform)
    keep: int = 4
    ask: int = 8
    rounds: int = 4
    rule: Rule = "balanced"
    threshold: float = 0.7

    gives = ("pool",)

    def __post_init__(self) -> None:
        if self.keep < 2 or self.ask < 1 or self.rounds < 1:
            raise ValueError(
                f"keep={self.keep}, ask={self.ask}, rounds={self.rounds}; give keep=2 or more, the others 1 or more"
            )

    def init(self, tasks: Sequence[Task]) -> dict[str, Any]:
        return {"inner": self.inner.init(tasks), "round": 0}

    def draw(
        self, state: dict[str, Any], tasks: Sequence[Task], count: int, key: Key
    ) -> tuple[dict[str, Any], list[Request]]:
        inner, drawn = self.inner.draw(state["inner"], tasks, count, key)
        return {"inner": inner, "round": 1}, [self._request(task) for task in only_tasks(drawn)]

    def more(
        self, state: dict[str, Any], groups: Sequence[Group]
    ) -> tuple[dict[str, Any], list[Request]]:
        """Another round for the tasks that have not left; none after the last round."""
        if state["round"] >= self.rounds:
            return state, []
        active = [group for group in pooled(groups) if not self._left(group)]
        return (
            {**state, "round": state["round"] + 1},
            [self._request(group.rollouts[0].task) for group in active if group.rollouts],
        )

    def select(self, state: dict[str, Any], groups: Sequence[Group]) -> list[Group]:
        """One group a task: the answers to learn from, with the success rate of all as baseline.

        A task whose rollouts were all lost keeps them, with baseline 0, so that they are counted.
        """
        chosen: list[Group] = []
        for group in pooled(groups):
            pool = [rollout for rollout in group.rollouts if rollout.end.scorable]
            correct = [self._right(rollout) for rollout in pool]
            if not pool:
                chosen.append(replace(group, baseline=0.0))
                continue
            kept = tuple(pool[i] for i in balanced(correct, self.keep))
            chosen.append(Group(group.key, kept, baseline=sum(correct) / len(correct)))
        return chosen

    def update(self, state: dict[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
        return {**state, "inner": self.inner.update(state["inner"], groups)}

    def _right(self, rollout: Rollout) -> bool:
        return rollout.reward > self.threshold

    def _left(self, group: Group) -> bool:
        correct = [self._right(rollout) for rollout in group.rollouts if rollout.end.scorable]
        rights = sum(correct)
        return exits(rights, len(correct) - rights, keep=self.keep, rule=self.rule)

    def _request(self, task: Task) -> Request:
        # the loop fills in the turns of this step's horizon and the seed of the task's world
        return Request(task, self.ask, max_turns=0)
