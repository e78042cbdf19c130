"""The curriculum that drops groups whose rewards hardly differ."""

from __future__ import annotations

import json

import pytest

from ludus.curricula.spread import Spread, deviation
from ludus.types import End, Group, Key, Rollout, Task
from ludus.weights.spread import SpreadFilter

TASKS = [Task("a"), Task("b")]


def group(name: str, *rewards: float, end: End = End.FAILED) -> Group:
    return Group(name, tuple(Rollout(Task(name), (), (), r, end) for r in rewards))


def test_deviation_is_unbiased_and_of_what_was_scored() -> None:
    assert deviation(group("a", 0.0, 1.0)) == pytest.approx(0.5**0.5)
    assert deviation(group("a", 1.0)) == 0.0
    assert deviation(group("a", 0.0, 1.0, end=End.JUDGE_ERROR)) == 0.0


def test_groups_below_the_bar_are_dropped_once_it_is_known() -> None:
    spread = Spread(SpreadFilter(beta=1.0, measure=1, use=2))
    state, drawn = spread.draw(spread.init(TASKS), TASKS, 2, Key(0))
    assert sorted(task.id for task in drawn if isinstance(task, Task)) == ["a", "b"]
    flat, wide = group("a", 0.0, 0.1), group("b", 0.0, 1.0)
    assert spread.select(state, [flat, wide]) == [flat, wide]  # nothing is measured yet
    state = json.loads(json.dumps(spread.update(state, [flat, wide])))
    assert spread.select(state, [flat, wide]) == [wide]
    assert spread.select(state, [flat, flat]) == [flat, flat]  # no step is empty


def test_groups_that_faults_have_emptied_do_not_lower_the_bar() -> None:
    spread = Spread(SpreadFilter(beta=1.0, measure=1, use=2))
    wide = group("a", 0.0, 1.0)
    lost = [group("a", 0.0, 0.0, end=End.ENV_CRASHED), Group("b", (wide.rollouts[0],))]
    after = spread.update(spread.init(TASKS), [*lost, wide])
    assert after["bar"]["average"] == pytest.approx(deviation(wide))
    none = spread.update(spread.init(TASKS), lost)
    assert none["bar"] == {"step": 1, "average": None, "count": 0}
