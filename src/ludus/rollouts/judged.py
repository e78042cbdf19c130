"""A strategy whose attempts are judged as they are made, for evaluations of what a recipe's reward decides.

Held-out success is read from how an attempt ended, and without an environment only a reward knows that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ludus.types import Group, Key, Request, Reward, Rollout, Strategy


@dataclass(frozen=True)
class Judged:
    """`inner`, and `reward` for the rollouts of each attempt, as a group of their own."""

    inner: Strategy
    reward: Reward

    gives = ("reward",)

    async def __call__(
        self, request: Request, sampler: Any, env: Any, key: Key
    ) -> Sequence[Rollout]:
        made = await self.inner(request, sampler, env, key)
        rollouts = (made,) if isinstance(made, Rollout) else tuple(made)
        (group,) = await self.reward([Group(request.task.id, rollouts)])
        return group.rollouts
