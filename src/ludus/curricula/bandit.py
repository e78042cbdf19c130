"""A bandit over kinds of tasks: what moved the policy most is drawn more often. SEC, arXiv:2505.14970.

The reward of a category is the mean |advantage| of its rollouts. With rewards of 0 and 1 and
advantages over the group's deviation that is about 2 sqrt(p (1 - p)), highest at a success rate of
one half: tasks that are neither hopeless nor finished. Nothing here knows which category is hard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ludus.advantages.relative import grpo
from ludus.types import Group, Key, Task

# ------------------------------------------------------------------------- values to probabilities


def boltzmann(values: Sequence[float], *, temperature: float = 1.0) -> list[float]:
    """exp(Q / temperature) over its sum; a high temperature is uniform.

    The paper's choice: 1 for Countdown, 0.4 for mathematics, 0.2 for three kinds of tasks mixed.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature:g} has no distribution; give a number above 0")
    highest = max(values)
    return _shares([math.exp((value - highest) / temperature) for value in values])


def proportional(values: Sequence[float], *, floor: float = 0.01) -> list[float]:
    """max(Q, floor) over its sum."""
    return _shares([max(value, floor) for value in values])


def epsilon_greedy(values: Sequence[float], *, epsilon: float = 0.1) -> list[float]:
    """epsilon shared by all, the rest by the highest values."""
    highest = max(values)
    best = _shares([float(value == highest) for value in values])
    return [epsilon / len(values) + (1 - epsilon) * share for share in best]


def _shares(weights: Sequence[float]) -> list[float]:
    whole = sum(weights)
    return [weight / whole for weight in weights]


# ------------------------------------------------------------------------- what a category earned


def mean_advantage(group: Group, advantage: Callable[..., torch.Tensor] = grpo) -> list[float]:
    """|A| of each scored rollout of the group, in order.

    advantage  (reward [R], group [R]) -> [R]: `grpo`, or `dr_grpo` where |A| should not be scaled.
    An estimator of whole rollouts gives each token the same |A|, so its mean over the tokens of a
    rollout is this number; |A| is taken before any averaging, or the mean would be 0.
    """
    rewards = [rollout.reward for rollout in group.rollouts if rollout.end.scorable]
    if not rewards:
        return []
    reward = torch.tensor(rewards, dtype=torch.float64)
    return advantage(reward, torch.zeros(len(reward), dtype=torch.int64)).abs().tolist()


def moved(
    value: dict[str, float],
    earned: dict[str, float],
    *,
    alpha: float,
    unvisited: Literal["keep", "decay"],
) -> dict[str, float]:
    """Q(c) <- (1 - alpha) Q(c) + alpha r(c) for the visited categories.

    Of one that was not visited the paper keeps Q; the release lets it decay, as if it had earned 0:
    rarely drawn categories sink, and because of the softmax come back.
    """
    if unvisited == "decay":
        earned = dict.fromkeys(value, 0.0) | earned
    return value | {c: (1 - alpha) * value[c] + alpha * r for c, r in earned.items()}


# ------------------------------------------------------------------------- the curriculum


def by_difficulty(task: Task) -> str:
    """Category of a task: its difficulty. For SEC-2D, f"{task.domain}/{task.difficulty:g}"."""
    return f"{task.difficulty:g}"


@dataclass(frozen=True)
class Bandit:
    """Draws a category for every task of a step, then the next unused task of that category.

    policy     values -> probabilities: partial(boltzmann, temperature=0.4), proportional, epsilon_greedy
    alpha      how fast a value follows what was last earned; 1 forgets the past
    category   task -> name; level, domain, or both
    measure    group -> |advantage| of its rollouts

    A task comes back once all tasks have been drawn. Where a drawn category is used up, another
    one that is not is drawn uniformly. State: {"value": {category: Q}, "epoch", "used": {category:
    count}}; the order inside a category depends on the seed and the epoch alone.
    """

    policy: Callable[[Sequence[float]], list[float]] = boltzmann
    alpha: float = 0.5
    unvisited: Literal["keep", "decay"] = "keep"
    category: Callable[[Task], str] = by_difficulty
    measure: Callable[[Group], Sequence[float]] = mean_advantage

    @property
    def needs(self) -> Sequence[str]:
        return ("group",) if self.measure is mean_advantage else ()

    def init(self, tasks: Sequence[Task]) -> dict[str, Any]:
        if not tasks:
            raise ValueError("there are no training tasks; env.tasks('train') returned none")
        names = sorted({self.category(task) for task in tasks})
        return {
            "value": dict.fromkeys(names, 0.0),
            "epoch": 0,
            "used": dict.fromkeys(names, 0),
        }

    def draw(
        self, state: dict[str, Any], tasks: Sequence[Task], count: int, key: Key
    ) -> tuple[dict[str, Any], list[Task]]:
        pools = {name: list[Task]() for name in state["value"]}
        for task in tasks:
            pools[self.category(task)].append(task)
        names = list(pools)
        chances = self.policy([state["value"][name] for name in names])
        epoch, used = state["epoch"], dict(state["used"])
        order = _order(pools, key.seed, epoch)
        random = key.generator()
        drawn: list[Task] = []
        for _ in range(count):
            left = [name for name in names if used[name] < len(pools[name])]
            if not left:
                epoch, used, left = epoch + 1, dict.fromkeys(names, 0), names
                order = _order(pools, key.seed, epoch)
            name = names[random.choice(len(names), p=chances)]
            if name not in left:
                name = left[random.integers(len(left))]
            drawn.append(order[name][used[name]])
            used[name] += 1
        return {**state, "epoch": epoch, "used": used}, drawn

    def update(self, state: dict[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
        seen: dict[str, list[float]] = {}
        for group in groups:
            if group.rollouts:
                name = self.category(group.rollouts[0].task)
                seen.setdefault(name, []).extend(self.measure(group))
        earned = {name: sum(values) / len(values) for name, values in seen.items() if values}
        value = moved(state["value"], earned, alpha=self.alpha, unvisited=self.unvisited)
        return {**state, "value": value}


def _order(pools: dict[str, list[Task]], seed: int, epoch: int) -> dict[str, list[Task]]:
    """The tasks of every category, shuffled anew each epoch."""
    shuffled: dict[str, list[Task]] = {}
    for name, pool in pools.items():
        random = (Key(seed) / "epoch" / epoch / "category" / name).generator()
        shuffled[name] = [pool[i] for i in random.permutation(len(pool))]
    return shuffled
