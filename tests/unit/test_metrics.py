"""avg@n, pass@k and their intervals, against numbers worked out by hand or by enumerating everything."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ludus.evals.metrics import (
    Interval,
    avg_at_n,
    bootstrap,
    by_task,
    mean,
    over_tasks,
    paired,
    pass_at_k,
    success,
    t_interval,
    table,
    wilson,
)
from ludus.types import End, Rollout, Task


def rollout(task: str, end: End, reward: float = 0.0) -> Rollout:
    return Rollout(Task(task), (), (), reward, end)


S, F, LOST = End.SOLVED, End.FAILED, End.ENV_CRASHED


# ------------------------------------------------------------------------------------------ avg@n, pass@k


def test_avg_at_n_is_no_best_of_n() -> None:
    """Three tasks, four attempts each: 1 of 4, 0 of 4, 2 of 4. avg@4 = 3/12; best of 4 would be 2/3."""
    scores = [[0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]]
    assert avg_at_n(scores).tolist() == [0.25, 0.0, 0.5]
    assert avg_at_n(scores).mean() == 0.25
    best = [max(task) for task in scores]
    assert np.mean(best) == pass_at_k([1, 0, 2], 4, 4).mean() == 2 / 3
    assert np.mean(best) != avg_at_n(scores).mean()
    attempts = [
        rollout(f"t{i}", S if right else F) for i, task in enumerate(scores) for right in task
    ]
    shown = table(attempts)
    assert shown["avg@4"].mean == shown["success"].mean == 0.25 and shown[
        "pass@4"
    ].mean == pytest.approx(2 / 3)


def test_tasks_may_differ_in_attempts_and_count_alike() -> None:
    assert avg_at_n([[1], [0, 0, 0, 1]]).tolist() == [1.0, 0.25]
    with pytest.raises(ValueError, match="a task without attempts"):
        avg_at_n([[1.0], []])


@pytest.mark.parametrize(
    ("n", "c", "k", "wanted"),
    [
        (10, 3, 1, 0.3),
        (10, 3, 5, 0.916667),  # 1 - C(7,5)/C(10,5) = 1 - 21/252
        (10, 3, 8, 1.0),
        (10, 0, 5, 0.0),
        (16, 1, 8, 0.5),
        (4, 1, 4, 1.0),
        (20, 5, 5, 0.806308),
        (20, 5, 10, 0.983746),
    ],
)
def test_pass_at_k(n: int, c: int, k: int, wanted: float) -> None:
    assert pass_at_k(c, n, k) == pytest.approx(wanted, abs=5e-7)
    counted = [any(draw) for draw in itertools.combinations([1] * c + [0] * (n - c), k)]
    assert pass_at_k(c, n, k) == pytest.approx(np.mean(counted))


def test_pass_at_k_is_unbiased_and_the_plug_in_is_not() -> None:
    """p = .3, n = 6, k = 3: the truth is 1 - .7^3 = .657; the plug-in's mean is .58583."""
    p, n, k = 0.3, 6, 3
    weight = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    assert weight @ pass_at_k(range(n + 1), n, k) == pytest.approx(0.657)  # type: ignore[operator]
    plug_in = 1 - (1 - np.arange(n + 1) / n) ** k
    assert weight @ plug_in == pytest.approx(0.58583, abs=5e-6)


def test_pass_at_5_of_four_tasks() -> None:
    """c = (0, 1, 4, 10) of 10: mean(0, .5, .97619, 1) = .619048; avg@10 = .375."""
    assert pass_at_k([0, 1, 4, 10], 10, 5).mean() == pytest.approx(0.619048, abs=5e-7)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="pass@5 of 4 attempts a task; give k from 1 to 4"):
        pass_at_k([1], [4], 5)
    with pytest.raises(ValueError, match="more right answers than attempts"):
        pass_at_k([5], [4], 1)


# ------------------------------------------------------------------------------------------ intervals


def test_bootstrap_over_tasks_against_all_draws() -> None:
    """6 tasks x 4 attempts, 1110 0010 1111 0000 1011 0100: over all 6^6 draws, 95% is [.20833, .79167]."""
    per_task = avg_at_n(
        [[1, 1, 1, 0], [0, 0, 1, 0], [1, 1, 1, 1], [0] * 4, [1, 0, 1, 1], [0, 1, 0, 0]]
    )
    everything = np.array([np.mean(draw) for draw in itertools.product(per_task, repeat=6)])
    assert np.quantile(everything, [0.025, 0.975]) == pytest.approx([0.208333, 0.791667], abs=1e-6)
    found = bootstrap(per_task)
    assert (found.mean, found.n) == (0.5, 6)
    assert (found.low, found.high) == pytest.approx((0.208333, 0.791667), abs=1e-6)


def test_attempts_at_a_task_are_not_counted_as_independent() -> None:
    """20 tasks, half of them always solved: 100 attempts at each say no more than one."""
    once = success([rollout(f"t{i}", S if i % 2 else F) for i in range(20)])
    often = success([rollout(f"t{i}", S if i % 2 else F) for i in range(20) for _ in range(100)])
    assert once == often and once.high - once.low > 0.39


def test_coverage_of_the_bootstrap() -> None:
    """30 tasks of solvability Beta(.5,.5), 8 attempts each: 95% intervals hold the truth about 94 times of 100."""
    generator = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        per_task = generator.binomial(8, generator.beta(0.5, 0.5, size=30)) / 8
        found = bootstrap(per_task, seed=trial, draws=500)
        held += found.low <= 0.5 <= found.high
    assert 178 <= held <= 198


def test_the_seed_decides_and_nothing_else() -> None:
    values = np.linspace(0, 1, 30) ** 2
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1) != bootstrap(values, seed=2)
    wide, narrow = bootstrap(values, level=0.99), bootstrap(values, level=0.5)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high
    with pytest.raises(ValueError, match=r"shape \[2, 2\]; give \[I\]"):
        bootstrap([[1, 2], [3, 4]])


def test_wilson_for_small_counts() -> None:
    """2 of 41: 4.9%, [1.3, 16.1]; 0 of 41: [0, 8.6]."""
    two, none = wilson(2, 41), wilson(0, 41)
    assert (two.mean, two.low, two.high) == pytest.approx((0.049, 0.013, 0.161), abs=5e-4)
    assert (none.low, none.high) == (0.0, pytest.approx(0.086, abs=5e-4))
    with pytest.raises(ValueError, match="42 of 41 is no share"):
        wilson(42, 41)


def test_none_solved_is_not_certainly_none() -> None:
    assert over_tasks([0.0] * 41) == wilson(0, 41)
    assert over_tasks([1.0] * 41) == wilson(41, 41) and over_tasks([1.0] * 41).low < 0.92
    assert over_tasks([0.5] * 41).low == 0.5  # each half solved: the bootstrap, and it has no width


def test_paired_difference() -> None:
    """A = .8 .6 .9 .3 .5 .7 .4 .6, B = .6 .6 .7 .4 .3 .5 .4 .3: .125, exact 95% [.0375, .2125]."""
    a = dict(enumerate([0.8, 0.6, 0.9, 0.3, 0.5, 0.7, 0.4, 0.6]))
    b = dict(enumerate([0.6, 0.6, 0.7, 0.4, 0.3, 0.5, 0.4, 0.3]))
    before, after = ({str(k): v for k, v in scores.items()} for scores in (b, a))
    found = paired(before, after)
    assert found.mean == pytest.approx(0.125) and found.n == 8
    assert (found.low, found.high) == pytest.approx((0.0375, 0.2125), abs=5e-3)
    apart = bootstrap(list(b.values())).high - bootstrap(list(a.values())).low
    assert found.low > 0 and apart > 0  # two separate intervals overlap and would not show it


def test_paired_uses_what_both_have() -> None:
    assert paired({"a": 0.0, "b": 1.0}, {"b": 1.0, "c": 0.0}).n == 1
    with pytest.raises(ValueError, match="no task in common"):
        paired({"a": 0.0}, {"b": 0.0})


def test_t_interval_over_seeds() -> None:
    """.6 .4 .8 .2: mean .5, sd .258199, t(3, .975) = 3.182446, half width .410852."""
    found = t_interval([0.6, 0.4, 0.8, 0.2])
    assert (found.mean, found.n) == (0.5, 4)
    assert (found.low, found.high) == pytest.approx((0.5 - 0.410852, 0.5 + 0.410852), abs=1e-6)
    tabled = {1: 12.7062, 2: 4.30265, 4: 2.776445, 9: 2.262157, 100: 1.983972}
    for freedom, t in tabled.items():
        values = np.arange(freedom + 1.0)
        half = t * values.std(ddof=1) / math.sqrt(freedom + 1)
        assert t_interval(values).high - values.mean() == pytest.approx(half, rel=1e-5)
    assert t_interval([1, 2, 3], level=0.99).low < t_interval([1, 2, 3]).low
    with pytest.raises(ValueError, match="run two or more, for instance --seeds 5"):
        t_interval([0.5])


# ------------------------------------------------------------------------------------------ of rollouts


def test_what_was_lost_outside_the_policy_is_not_scored() -> None:
    attempts = [rollout("a", S), rollout("a", LOST), rollout("b", F), rollout("c", LOST)]
    assert by_task(attempts) == {"a": [1.0], "b": [0.0]}
    assert (success(attempts).mean, success(attempts).n) == (0.5, 2)
    with pytest.raises(ValueError, match="none of 1 attempts can be scored"):
        success([rollout("a", LOST)])


def test_the_table_of_an_evaluation() -> None:
    ends = {"a": [S, S, F, F], "b": [F, F, F, F], "c": [S, F, LOST, LOST]}
    attempts = [
        rollout(task, end, reward=2.0 * (end is S)) for task, seen in ends.items() for end in seen
    ]
    found = table(attempts, ks=[1, 2, 4])
    assert list(found) == ["success", "reward", "avg@4", "pass@1", "pass@2", "pass@4"]
    assert found["success"].mean == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert found["reward"].mean == pytest.approx((1 + 0 + 1) / 3)
    assert found["pass@1"].mean == pytest.approx(found["success"].mean)
    assert found["pass@2"].mean == pytest.approx((5 / 6 + 0 + 1) / 3)
    assert (found["pass@4"].mean, found["pass@4"].n) == (0.5, 2)  # c has two scored attempts only
    with pytest.raises(ValueError, match="no task has more than 4 scored attempts"):
        table(attempts, ks=[8])


def test_small_things() -> None:
    assert mean(x for x in (1.0, 2.0)) == 1.5 and math.isnan(mean([]))
    assert str(Interval(0.5, 0.25, 0.75, 9)) == "0.500 [0.250, 0.750]"
