"""How probable the first weights find each task's reference answer, before any reasoning: RLPR's r'.

RLPR (arXiv:2506.18254) takes it off the reward, so that an answer which is easy to guess earns nothing. It is measured
once, with the weights that training starts from; measured again later it would take from the policy what it has
learnt to know by heart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ludus.models.world_base import WorldBase
from ludus.rewards.forced_score import SIGNAL, mean_probability
from ludus.rollouts.forced import forced_score
from ludus.rollouts.gain import reference
from ludus.types import End, Env, Key, Message, Request, Rollout, Sampler


@dataclass(frozen=True)
class Prior(Mapping[str, float]):
    """Id of a task of either split -> mean probability of its reference directly behind the prompt.

    Measured where it is first asked for, by the weights of `model`: give it the recipe's own. A run with another
    model wants another Prior.

    model  a base that makes itself, a directory or a hub name
    space  between prompt and answer, encoded with the answer as policies write it
    """

    env: Env
    model: WorldBase | str
    space: str = " "

    def __getitem__(self, name: str) -> float:
        return self._measured[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._measured)

    def __len__(self) -> int:
        return len(self._measured)

    @cached_property
    def _measured(self) -> dict[str, float]:
        # a reward asks while an event loop runs, and the engine has its own: a thread for it
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._measure).result()

    def _measure(self) -> dict[str, float]:
        from ludus.engines.local.build import open_model
        from ludus.engines.local.engine import LocalEngine
        from ludus.engines.local.sampler import LocalSampler

        policy, renderer = open_model(self.model)
        engine = LocalEngine(LocalSampler(policy, renderer))
        try:
            tasks = [*self.env.tasks("train"), *self.env.tasks("test")]
            requests = [Request(task, 1, 1) for task in tasks]
            groups = engine.collect(self._score, requests, self.env, Key(0))
        finally:
            engine.close()
        return {group.key: mean_probability(group.rollouts[0].signals[SIGNAL]) for group in groups}

    async def _score(self, request: Request, sampler: Sampler, env: Any, key: Key) -> Rollout:
        """A rollout of no turns, with the log-probabilities of the reference behind the opening."""
        task = request.task
        step = await env.reset(task, request.seed)
        await env.leave(step.state)
        context = sampler.renderer.open((*task.prompt, Message("user", step.observation)))
        logp: np.ndarray = await forced_score(sampler, context, "", self.space + reference(task))
        return Rollout(task, (), (), 0.0, End.FAILED, signals={SIGNAL: logp})
