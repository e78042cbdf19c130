"""One prompt, one answer: the strategy of single-turn reasoning. A reward scores the answer afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ludus.types import ContextTooLong, End, Key, Node, Request, Rollout, Sampler, Sampling, Turn


@dataclass(frozen=True)
class SingleTurn:
    sampling: Sampling = field(default_factory=Sampling)

    gives = ("guidance", "one context", "one prompt")
    roles = ()

    async def __call__(self, request: Request, sampler: Sampler, env: object, key: Key) -> Rollout:
        renderer: Any = sampler.renderer
        opening = (*request.task.prompt, *request.guidance)
        context: Node = renderer.open(opening)
        try:
            completion = await sampler.generate(context, self.sampling, key / "turn" / 0)
        except ContextTooLong as problem:
            return Rollout(
                request.task, (), (), 0.0, End.OUT_OF_TOKENS, error=str(problem), opening=opening
            )
        node = completion.node(context)
        turn = Turn(node, renderer.text(completion.said))
        # whether it is right is the reward's to say; here it is only known whether it came to an end
        end = End.OUT_OF_TOKENS if completion.finish == "length" else End.FAILED
        return Rollout(request.task, (node,), (turn,), 0.0, end, opening=opening)
