"""Success, avg@n and pass@k with honest intervals. Everything is a function of the scores of attempts, by task.

Legend: I tasks, n attempts at a task, c of them right, S training seeds.

What is random decides the interval. New tasks of the same kind: tasks are the unit (`bootstrap`), however often each
was attempted; attempts at one task are alike, and counting them as independent makes intervals too narrow. A training
method: seeds are the unit (`t_interval`). Two models on the same tasks: their differences, task by task (`paired`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import mpmath
import numpy as np
from numpy.typing import ArrayLike

from ludus.types import Explained, Key, Rollout

DRAWS = 5000


@dataclass(frozen=True)
class Interval:
    """A mean, the interval of confidence `level` around it, and the number n of units that it was computed from."""

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


class NothingScored(Explained, ValueError):
    """Every attempt ended for a reason outside the policy."""


def mean(values: Iterable[float]) -> float:
    """The mean; NaN of nothing."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


# ---------------------------------------------------------------------------------------- one number a task


def avg_at_n(scores: Sequence[ArrayLike]) -> np.ndarray:
    """[I] each [n] -> [I]: the mean score of a task over *all* its attempts; never the best one.

    Its mean over tasks estimates the score of a single attempt (pass@1); n only makes it steadier.
    Tasks may differ in n. Errors: ValueError for a task without attempts.
    """
    _not_empty([np.size(task) for task in scores])
    return np.array([np.mean(np.asarray(task, dtype=np.float64)) for task in scores])


def pass_at_k(correct: ArrayLike, attempts: ArrayLike, k: int) -> np.ndarray:
    """[I], [I] -> [I]: the probability that one of k attempts, drawn without replacement from n, is right.

        pass@k = 1 - C(n-c, k) / C(n, k)        unbiased; arXiv:2107.03374

    The plug-in 1 - (1 - c/n)^k is biased (n=10, c=3, k=5: .83193 for .91667). At k = n it is "any attempt right".
    Computed as 1 - prod_{j=n-c+1..n} (1 - k/j), which never leaves [0, 1].

    Errors: ValueError if k < 1, k > n, or c is not in 0..n.
    """
    c, n = np.broadcast_arrays(np.asarray(correct), np.asarray(attempts))
    _not_empty(n.ravel().tolist())
    if k < 1 or k > n.min():
        raise ValueError(
            f"pass@{k} of {n.min()} attempts a task; give k from 1 to {n.min()}, or attempt more often"
        )
    if (c < 0).any() or (c > n).any():
        raise ValueError(
            f"more right answers than attempts, or fewer than none: {c.tolist()} of {n.tolist()}"
        )
    one = [
        1 - math.prod(1 - k / j for j in range(m - r + 1, m + 1))
        for r, m in zip(c.flat, n.flat, strict=True)
    ]
    return np.array(one, dtype=np.float64).reshape(c.shape)


def _not_empty(counts: Sequence[int]) -> None:
    if not counts or min(counts) < 1:
        raise ValueError("a task without attempts has no score; leave it out, or attempt it")


# ---------------------------------------------------------------------------------------- intervals


def bootstrap(
    per_task: ArrayLike, *, seed: int = 0, draws: int = DRAWS, level: float = 0.95
) -> Interval:
    """[I] -> the mean over tasks, with the percentile bootstrap over tasks (each task with all its attempts).

    Efron 1979. Right for means of about 20 tasks and more; with fewer it is too narrow, and where all tasks score the
    same it has no width at all (`success` mends that case).
    """
    values = np.asarray(per_task, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"per_task has shape {list(values.shape)}; give [I], one number per task")
    generator = (Key(seed) / "bootstrap").generator()
    means = np.array(
        [values[generator.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), len(values), level)


def wilson(right: int, n: int, *, level: float = 0.95) -> Interval:
    """Interval of a share, sound for small counts and for none or all of n. Wilson 1927. 2 of 41: [.013, .161]."""
    if not 0 <= right <= n or n < 1:
        raise ValueError(f"{right} of {n} is no share; give 0 <= right <= n and n >= 1")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, scale = right / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), n, level)


def paired(
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = 0.95,
) -> Interval:
    """Task -> score of two models on the same tasks -> the mean of after - before, bootstrapped over tasks.

    Much narrower than two separate intervals, since what makes a task hard is the same for both. A task that only one
    of them has (all attempts lost) is left out; `n` tells how many both had. Errors: ValueError if there is none.
    """
    both = [task for task in before if task in after]
    if not both:
        raise ValueError("the two models have no task in common; evaluate both on the same tasks")
    differences = [after[task] - before[task] for task in both]
    return bootstrap(differences, seed=seed, draws=draws, level=level)


def t_interval(per_seed: ArrayLike, *, level: float = 0.95) -> Interval:
    """[S] -> the mean over training seeds, with Student's t (S - 1 degrees of freedom).

    mean +- t * sd / sqrt(S), sd with S - 1.  Errors: ValueError for one seed, which says nothing about others.
    """
    values = np.asarray(per_seed, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(
            f"{values.size} seed(s) give no interval; run two or more, for instance --seeds 5"
        )
    half = (
        _t_quantile((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    )
    centre = float(values.mean())
    return Interval(centre, float(centre - half), float(centre + half), len(values), level)


def _t_quantile(p: float, freedom: int) -> float:
    """t with P(T <= t) = p >= 1/2: P(|T| > t) is the regularised incomplete beta at freedom / (freedom + t^2)."""

    def beyond(x: Any) -> Any:
        return mpmath.betainc(freedom / 2, 0.5, 0, x, regularized=True) - 2 * (1 - p)

    x = mpmath.findroot(beyond, (0, 1), solver="bisect", maxsteps=60, verify=False)
    return float(mpmath.sqrt(freedom * (1 - x) / x))


# ---------------------------------------------------------------------------------------- of rollouts


def solved(rollout: Rollout) -> float:
    return float(rollout.solved)


def by_task(
    rollouts: Iterable[Rollout], score: Callable[[Rollout], float] = solved
) -> dict[str, list[float]]:
    """Task id -> the scores of its attempts. An attempt that ended for a reason outside the policy has no score."""
    scores: dict[str, list[float]] = {}
    for rollout in rollouts:
        if rollout.end.scorable:
            scores.setdefault(rollout.task.id, []).append(score(rollout))
    return scores


def over_tasks(per_task: ArrayLike, *, seed: int = 0, level: float = 0.95) -> Interval:
    """[I] of shares in [0, 1] -> the mean over tasks, with the bootstrap over tasks.

    Where every task scores 0, or every task 1, resampling shows no spread although the next task may differ; there
    the interval is Wilson's for as many tasks (0 of 41: [0, .086]).
    """
    shares = np.asarray(per_task, dtype=np.float64)
    if len(shares) and (not shares.any() or (shares == 1).all()):
        return wilson(int(shares.sum()), len(shares), level=level)
    return bootstrap(shares, seed=seed, level=level)


def success(rollouts: Sequence[Rollout], *, seed: int = 0, level: float = 0.95) -> Interval:
    """The share solved: avg@n of `solved`, over tasks. Errors: NothingScored."""
    return over_tasks(avg_at_n(_scored(rollouts, solved)), seed=seed, level=level)


def _scored(rollouts: Sequence[Rollout], score: Callable[[Rollout], float]) -> list[list[float]]:
    scores = list(by_task(rollouts, score).values())
    if not scores:
        raise NothingScored(
            f"none of {len(rollouts)} attempts can be scored; see `end` and `error` of the rollouts"
        )
    return scores


def table(
    rollouts: Sequence[Rollout], ks: Sequence[int] = (), *, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """What `ludus eval` prints: success, reward, and pass@k for each k (n, the attempts at a task, if none is given).

    {"success": ..., "reward": ..., "avg@4": ..., "pass@1": ..., "pass@4": ...}. avg@n is success under its usual name,
    where tasks have n scored attempts. A task with fewer than k scored attempts is not in pass@k; its `n` tells.

    Errors: NothingScored; ValueError if no task has k scored attempts.
    """
    tries = _scored(rollouts, solved)
    n = max(map(len, tries))
    found = success(rollouts, seed=seed, level=level)
    rewards = avg_at_n(_scored(rollouts, lambda rollout: rollout.reward))
    result = {
        "success": found,
        "reward": bootstrap(rewards, seed=seed, level=level),
        f"avg@{n}": found,
    }
    for k in sorted(set(ks) or {n}):
        enough = [scores for scores in tries if len(scores) >= k]
        if not enough:
            raise ValueError(
                f"pass@{k}, but no task has more than {n} scored attempts; give --k {n}, or more answers"
            )
        right, attempts = (
            [int(sum(scores)) for scores in enough],
            [len(scores) for scores in enough],
        )
        result[f"pass@{k}"] = over_tasks(pass_at_k(right, attempts, k), seed=seed, level=level)
    return result
