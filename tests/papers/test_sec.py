"""Pinned numbers of SEC, arXiv:2505.14970, and a bandit that finds what can be learnt, whatever it is called."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from ludus.advantages.relative import dr_grpo
from ludus.curricula.bandit import (
    Bandit,
    boltzmann,
    by_difficulty,
    epsilon_greedy,
    mean_advantage,
    moved,
    proportional,
)
from ludus.types import End, Group, Key, Rollout, Task

LEVELS = [Task(f"{level}-{i}", difficulty=level) for level in (1, 2, 3) for i in range(4)]


def group(task: Task, rewards: Sequence[float], lost: int = 0) -> Group:
    made = [Rollout(task, (), (), reward, End.FAILED) for reward in rewards]
    made += [Rollout(task, (), (), 0.0, End.ENV_CRASHED)] * lost
    return Group(task.id, tuple(made))


def test_two_steps() -> None:
    start = {"1": 0.0, "2": 0.0, "3": 0.0}
    first = {"1": 0.9, "2": 0.4}
    for unvisited in ("keep", "decay"):
        value = moved(start, first, alpha=0.5, unvisited=unvisited)
        assert value == pytest.approx({"1": 0.45, "2": 0.2, "3": 0.0})
    chances = [0.413834, 0.322294, 0.263872]
    assert boltzmann(list(value.values())) == pytest.approx(chances, abs=1e-6)
    chances = [0.537659, 0.287788, 0.174552]
    assert boltzmann(list(value.values()), temperature=0.4) == pytest.approx(chances, abs=1e-6)
    second = {"2": 0.6, "3": 0.8}
    kept = moved(value, second, alpha=0.5, unvisited="keep")
    assert kept == pytest.approx({"1": 0.45, "2": 0.4, "3": 0.4})
    chances = [0.361664, 0.319168, 0.319168]
    assert boltzmann(list(kept.values()), temperature=0.4) == pytest.approx(chances, abs=1e-6)
    faded = moved(value, second, alpha=0.5, unvisited="decay")
    assert faded == pytest.approx({"1": 0.225, "2": 0.4, "3": 0.4})
    chances = [0.244042, 0.377979, 0.377979]
    assert boltzmann(list(faded.values()), temperature=0.4) == pytest.approx(chances, abs=1e-6)


def test_limits() -> None:
    assert boltzmann([0.9, 0.1, -3], temperature=1e6) == pytest.approx([1 / 3] * 3, abs=2e-6)
    assert boltzmann([1000.0, 0.0]) == pytest.approx([1.0, 0.0])  # no overflow
    assert moved({"a": 0.3}, {"a": 0.7}, alpha=1.0, unvisited="keep") == {"a": 0.7}
    value = {"a": 0.8}
    for _ in range(10):  # always solved, or never: nothing to learn
        value = moved(value, {"a": 0.0}, alpha=0.5, unvisited="keep")
    assert value["a"] == pytest.approx(0.8 / 2**10)
    with pytest.raises(ValueError, match="give a number above 0"):
        boltzmann([1.0], temperature=0)


def test_other_ways_to_draw() -> None:
    assert proportional([0.3, 0.1, -0.2]) == pytest.approx([0.3 / 0.41, 0.1 / 0.41, 0.01 / 0.41])
    assert epsilon_greedy([0.3, 0.1]) == pytest.approx([0.95, 0.05])
    assert epsilon_greedy([0.3, 0.3, 0.1]) == pytest.approx([0.45 + 0.1 / 3] * 2 + [0.1 / 3])


def test_the_advantage_is_taken_before_any_mean() -> None:
    mixed = group(LEVELS[0], [1, 0, 0, 0])
    assert mean_advantage(mixed) == pytest.approx([1.5, 0.5, 0.5, 0.5], abs=1e-5)
    # E|A| = 2 sqrt(p (1 - p)) sqrt((G - 1) / G) with the unbiased deviation, highest at a half
    for right in (1, 2, 4):
        got = mean_advantage(group(LEVELS[0], [1.0] * right + [0.0] * (8 - right)))
        p = right / 8
        want = 2 * math.sqrt(p * (1 - p)) * math.sqrt(7 / 8)
        assert sum(got) / 8 == pytest.approx(want, abs=1e-5)
    assert mean_advantage(group(LEVELS[0], [1, 1, 1])) == [0.0] * 3
    assert mean_advantage(group(LEVELS[0], [], lost=2)) == []
    assert mean_advantage(group(LEVELS[0], [1, 0], lost=2)) == mean_advantage(
        group(LEVELS[0], [1, 0])
    )
    assert mean_advantage(mixed, dr_grpo) == [0.75, 0.25, 0.25, 0.25]


def test_a_category_earns_the_mean_over_its_rollouts() -> None:
    bandit = Bandit(alpha=1.0)
    state = bandit.init(LEVELS)
    state = bandit.update(
        state,
        [
            group(LEVELS[0], [1, 0, 0, 0]),  # mean .75
            group(LEVELS[1], [1, 1, 1, 1]),  # 0, the same level
            group(LEVELS[4], [1, 0]),  # .7071
            group(LEVELS[8], [], lost=4),  # nobody knows
        ],
    )
    want = {"1": 0.375, "2": math.sqrt(0.5), "3": 0.0}
    assert state["value"] == pytest.approx(want, abs=1e-5)
    assert bandit.update(state, []) == state


def test_every_task_comes_once_before_any_comes_twice() -> None:
    bandit = Bandit(policy=partial(boltzmann, temperature=0.01))
    state = {**bandit.init(LEVELS), "value": {"1": 1.0, "2": 0.0, "3": 0.0}}
    state, drawn = bandit.draw(state, LEVELS, 12, Key(0))
    assert sorted(task.id for task in drawn) == sorted(task.id for task in LEVELS)
    # only level 1 is wanted; once it is used up the others are drawn, both of them
    assert {task.difficulty for task in drawn[:4]} == {1}
    assert {task.difficulty for task in drawn[4:8]} == {2, 3}
    again, more = bandit.draw(state, LEVELS, 4, Key(0) / 1)
    assert {task.difficulty for task in more} == {1} and again["epoch"] == 1
    assert [task.id for task in more] != [task.id for task in drawn[:4]]  # in a new order


def test_state_is_json_and_resuming_draws_the_same() -> None:
    bandit = Bandit(unvisited="decay", alpha=0.3)

    def steps(state: Any, first: int, last: int) -> tuple[Any, list[str]]:
        names: list[str] = []
        for step in range(first, last):
            state, drawn = bandit.draw(state, LEVELS, 5, Key(7) / "step" / step)
            names += [task.id for task in drawn]
            state = bandit.update(state, [group(t, [1, 0, t.difficulty > 1]) for t in drawn])
        return state, names

    whole, names = steps(bandit.init(LEVELS), 0, 20)
    half, before = steps(bandit.init(LEVELS), 0, 9)
    end, after = steps(json.loads(json.dumps(half)), 9, 20)
    assert before + after == names and end == whole


def shares(named: dict[int, int], *, steps: int = 60, per_step: int = 16) -> dict[int, float]:
    """Share of draws on each level of success rate 1, .95, .5, .05, 0, 0, where level n is called named[n]."""
    rates = dict(enumerate([1.0, 0.95, 0.5, 0.05, 0.0, 0.0], 1))
    tasks = [
        Task(f"{level}-{i}", difficulty=named[level], extras={"level": level})
        for level in rates
        for i in range(800)
    ]
    bandit = Bandit(policy=partial(boltzmann, temperature=0.4))
    state, seen = bandit.init(tasks), Counter[int]()
    for step in range(steps):
        key = Key(1) / step
        state, drawn = bandit.draw(state, tasks, per_step, key)
        made = []
        for place, task in enumerate(drawn):
            luck = (key / place).generator().random(8)
            rate = rates[task.extras["level"]]
            made.append(group(task, [float(x < rate) for x in luck]))
            seen[task.extras["level"]] += 1
        state = bandit.update(state, made)
    return {level: seen[level] / seen.total() for level in rates}


def test_what_can_be_learnt_is_drawn_more_whatever_it_is_called() -> None:
    plain = shares({level: level for level in range(1, 7)})
    assert plain[3] > 1.7 / 6
    assert max(plain[1], plain[5], plain[6]) < 1 / 6
    # a fixed order from easy to hard would follow the names
    swapped = shares({level: 7 - level for level in range(1, 7)})
    assert swapped[3] > 1.7 / 6


def test_categories_of_two_kinds() -> None:
    both = [replace(task, domain=d) for task in LEVELS for d in ("sums", "grids")]
    bandit = Bandit(category=lambda task: f"{task.domain}/{task.difficulty:g}")
    assert list(bandit.init(both)["value"]) == [
        f"{d}/{n}" for d in ("grids", "sums") for n in (1, 2, 3)
    ]
    assert by_difficulty(Task("t", difficulty=1.5)) == "1.5"
    with pytest.raises(ValueError, match="no training tasks"):
        bandit.init([])
