"""An answer that is given, not sampled: how surprised is the policy by it?"""

from __future__ import annotations

from dataclasses import dataclass

from ludus.rollouts.forced import forced_score
from ludus.types import ContextTooLong, End, Key, Request, Rollout, Sampler


@dataclass(frozen=True)
class Given:
    """`task.answer` after `task.prompt`; terms: "nll", in nats, summed over its "tokens"."""

    async def __call__(self, request: Request, sampler: Sampler, env: object, key: Key) -> Rollout:
        task = request.task
        try:
            logp = await forced_score(sampler, sampler.renderer.open(task.prompt), "", task.answer)
        except ContextTooLong as problem:
            return Rollout(task, (), (), 0.0, End.OUT_OF_TOKENS, error=str(problem))
        terms = {"nll": -float(logp.sum()), "tokens": float(len(logp))}
        return Rollout(task, (), (), 0.0, End.FAILED, terms=terms)
