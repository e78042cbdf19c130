"""Which rollouts to imitate: rejection sampling, and a count of what was left out and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from ludus.types import Group, Rollout


@dataclass(frozen=True)
class Selection:
    """What was kept, in the order of the tasks' first appearance, and what became of the rest.

    dropped  reason -> rollouts left out for it; with `kept` it adds up to all rollouts
    without  ids of the tasks of which nothing was kept: they give no gradient, and their share is worth watching
    """

    kept: tuple[Rollout, ...]
    dropped: Mapping[str, int]
    without: tuple[str, ...]


def scorable(group: Group) -> list[Rollout]:
    """The rollouts whose end was the policy's own doing. Raises ValueError if one of them has a reward of NaN."""
    rollouts = [rollout for rollout in group.rollouts if rollout.end.scorable]
    for index, rollout in enumerate(rollouts):
        if math.isnan(rollout.reward):
            raise ValueError(
                f"a rollout of group {group.key!r} (number {index} of those scored) has reward NaN; "
                "give it an end that is not scorable, such as End.JUDGE_ERROR"
            )
    return rollouts


def keep_best(
    groups: Sequence[Group], *, above: float = -math.inf, per_task: int | None = 1
) -> Selection:
    """Of each task, the `per_task` answers with the highest rewards, if those are higher than `above`.

        RAFT, best of n   per_task=1                    the best, whatever it is worth     arXiv:2304.06767
        RFT               per_task=None, above=0        every different right answer       arXiv:2308.01825
        AgentEvol         per_task=1, above=0.99        one success a task                 arXiv:2406.04151
                          (above=99 on SciWorld's scale of 100, above=0 on BabyAI)

    A task is known by its id: groups that attempt it again add to it. Of equal rewards the first comes first; an
    answer that did and saw exactly what an earlier one of its task did is a duplicate; a task without an answer above
    is left out and counted. AgentEvol then trains the *first* model anew on the original data and the kept.
    """
    if per_task is not None and per_task < 1:
        raise ValueError(f"per_task is {per_task}; give 1 or more, or None for all")
    by_task: dict[str, list[Rollout]] = {}
    dropped: Counter[str] = Counter()
    for group in groups:
        fair = scorable(group)
        dropped["not the policy's doing"] += len(group.rollouts) - len(fair)
        for rollout in group.rollouts:
            by_task.setdefault(rollout.task.id, [])
        for rollout in fair:
            by_task[rollout.task.id].append(rollout)

    kept: list[Rollout] = []
    without: list[str] = []
    for task, rollouts in by_task.items():
        good = [rollout for rollout in rollouts if rollout.reward > above]
        good.sort(key=lambda rollout: -rollout.reward)  # stable: the first of equals stays first
        first: dict[Hashable, Rollout] = {}
        for rollout in good:
            first.setdefault(_response(rollout), rollout)
        chosen = list(first.values())[:per_task]
        dropped["reward too low"] += len(rollouts) - len(good)
        dropped["duplicate"] += len(good) - len(first)
        dropped["not among the best"] += len(first) - len(chosen)
        kept += chosen
        if not chosen:
            without.append(task)
    return Selection(tuple(kept), {k: n for k, n in dropped.items() if n}, tuple(without))


def _response(rollout: Rollout) -> Hashable:
    """What makes two attempts the same to a reader: every action, and what the world answered to it."""
    return tuple((turn.action, turn.observation, turn.pictures) for turn in rollout.turns)
