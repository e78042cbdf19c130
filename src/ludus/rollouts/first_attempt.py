"""How long was the first attempt? Counted on the tokens as they were sampled, for rewards that compare lengths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ludus.envs.guard import Guarded
from ludus.rewards.reflection import FIRST_ATTEMPT
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.single_turn import SingleTurn
from ludus.types import Key, Request, Rollout, Sampler


@dataclass(frozen=True)
class FirstAttempt:
    """`inner`, with the tokens of the last turn up to the first `mark` among the signals; 0 if it is not there."""

    inner: AgentLoop | SingleTurn
    mark: str = "</answer>"

    gives = (FIRST_ATTEMPT,)

    async def __call__(
        self, request: Request, sampler: Sampler, env: Guarded | None, key: Key
    ) -> Rollout:
        rollout = await self.inner(request, sampler, env, key)
        count = 0
        if rollout.turns:
            count = tokens_until(self.mark, rollout.turns[-1].node.tokens, sampler.renderer)
        return replace(rollout, signals={**rollout.signals, FIRST_ATTEMPT: count})


def tokens_until(mark: str, tokens: np.ndarray, renderer: Any) -> int:
    """The least number of tokens whose text has `mark` in it; 0 if that of all has not."""
    if mark not in renderer.text(tokens):
        return 0
    low, high = 0, len(tokens)  # `low` tokens are too few, `high` are enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if mark in renderer.text(tokens[:middle]) else (middle, high)
    return high
