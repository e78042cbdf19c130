"""An answer, and how far it is from what a frozen player would have said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ludus.rollouts.single_turn import SingleTurn
from ludus.types import Key, Request, Rollout, Sampler


@dataclass(frozen=True)
class Watched:
    """terms["kl/BY"] = log pi(answer) - log by(answer): its mean over answers is KL(pi || by), in nats of an answer.

    inner  plays the role `role`, at temperature 1
    by     name of the role of who watches, frozen (ludus.train.recipe.Frozen), and is a reward of nothing
    """

    inner: SingleTurn
    role: str = "policy"
    by: str = "first"

    def __post_init__(self) -> None:
        if self.inner.sampling.temperature != 1:
            raise ValueError(
                f"temperature={self.inner.sampling.temperature:g}; a KL between two policies is measured at 1, where "
                "both are what they say"
            )

    async def __call__(
        self, request: Request, sampler: Mapping[str, Sampler], env: object, key: Key
    ) -> Rollout:
        rollout = replace(await self.inner(request, sampler[self.role], env, key), agent=self.role)
        if not rollout.turns:
            return rollout
        node = rollout.turns[-1].node
        assert node.parent is not None and node.logprobs is not None
        theirs = await sampler[self.by].score(node.parent, node.tokens)
        far = float((node.logprobs - theirs).sum())
        return replace(rollout, terms={**rollout.terms, f"kl/{self.by}": far})
