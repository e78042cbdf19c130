"""Start states from the best own sample: the data of ReST-GRPO, the first stage of ReST-RL, arXiv:2508.19576.

A problem is kept if its samples differ in reward. Its prompt is a start state, and if a sample was (nearly) right, so
are some beginnings of the best one: from there, a policy that rarely succeeds from the bare prompt sees both outcomes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from ludus.types import Key


def varied(rewards: Sequence[float], least: float = 0.05) -> bool:
    """Whether the population standard deviation of the rewards is at least `least`."""
    return statistics.pstdev(rewards) >= least


def prefix_weights(lines: int, alpha: float = 0.95) -> list[float]:
    """p(i) = alpha^i / sum_j alpha^j for i = 0 .. lines - 1: shorter beginnings are likelier; alpha 1 is uniform."""
    if lines < 1 or alpha <= 0:
        raise ValueError(
            f"lines={lines}, alpha={alpha}; give at least one line and a positive alpha"
        )
    powers = [alpha**i for i in range(lines)]
    return [power / sum(powers) for power in powers]


def start_states(
    prompt: str,
    samples: Sequence[str],
    rewards: Sequence[float],
    key: Key,
    *,
    least_std: float = 0.05,
    least_best: float = 0.9,
    alpha: float = 0.95,
    beta: float = 0.5,
) -> list[str]:
    """The states to train from for one problem: none, the prompt, or the prompt and ceil(beta L) beginnings.

    Beginning i is the prompt and the first i + 1 of the L lines of the first best sample, drawn with replacement by
    `prefix_weights`; the last one is the whole sample. It must be the best sample's: a failed one may end nowhere.
    """
    if len(samples) != len(rewards):
        raise ValueError(
            f"{len(samples)} samples came with {len(rewards)} rewards; give one for each"
        )
    if not varied(rewards, least_std):
        return []
    place = max(range(len(rewards)), key=lambda i: rewards[i])
    lines = samples[place].rstrip().splitlines(keepends=True)
    if rewards[place] < least_best or not lines:
        return [prompt]
    drawn = key.generator().choice(
        len(lines), size=math.ceil(beta * len(lines)), p=prefix_weights(len(lines), alpha)
    )
    return [prompt, *(prompt + "".join(lines[: i + 1]) for i in drawn)]


def completion_reward(passed: float, stopped: bool, trailing: int) -> float:
    """Share of tests passed + 0.001 if a stop string was written - 0.000001 for each character after it."""
    return passed + 1e-3 * stopped - 1e-6 * trailing
