"""A thought, soft or hard, and then an answer in tokens. Soft Tokens, arXiv:2509.19170.

The thought ends with a sentence, which a soft thought has in its likeliest tokens; what opens the answer is put behind
it. Where the thought ended without the sentence (its limit was hit, say), all of the sentence is put there. Both parts
are trained on: the thought by its log-densities where it is soft, the answer by its log-probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ludus.envs.guard import EnvFault, Guarded
from ludus.rollouts.episode import played
from ludus.rollouts.forced import encode
from ludus.types import (
    ContextTooLong,
    End,
    Key,
    Message,
    Node,
    Request,
    Rollout,
    Sampler,
    Sampling,
    Step,
    Turn,
)


@dataclass(frozen=True)
class SoftThought:
    """One thought and one answer a task; the environment sees them as one action.

    sampling  of the thought; without `Sampling.soft` it is written in tokens, the baseline
    answer    of the answer, always in tokens; at the thought's temperature where both are trained on
    ends      the sentence that ends the thought
    opens     what is put behind it, before the answer
    """

    sampling: Sampling = field(default_factory=Sampling)
    answer: Sampling = field(default_factory=lambda: Sampling(max_tokens=32, stop=("}",)))
    ends: str = "The final answer is:"
    opens: str = " \\boxed{"

    gives = ("reward", "turn_reward", "guidance", "one context", "one prompt")
    roles = ()

    def __post_init__(self) -> None:
        if self.answer.soft is not None:
            raise ValueError("the answer is read as text; give answer=Sampling(...) without soft")

    async def __call__(
        self, request: Request, sampler: Sampler, env: Guarded | None, key: Key
    ) -> Rollout:
        return await played(
            "a SoftThought", request, env, partial(self._answer, request, sampler, key)
        )

    async def _answer(
        self, request: Request, sampler: Sampler, key: Key, env: Guarded, step: Step
    ) -> Rollout:
        renderer: Any = sampler.renderer
        opening = (*request.task.prompt, *request.guidance, Message("user", step.observation))
        context: Node = renderer.open(opening)
        turns: list[Turn] = []
        try:
            sampling = replace(self.sampling, stop=(self.ends,))
            made = await sampler.generate(context, sampling, key / "thought")
            context, thought = made.node(context), renderer.text(made.said)
            put = self.opens if self.ends in thought else f" {self.ends}{self.opens}"
            turns.append(Turn(context, thought, put))
            context = Node(context, encode(renderer, put), role="template")
            made = await sampler.generate(context, self.answer, key / "answer")
        except ContextTooLong as problem:
            contexts = (context,) if turns else ()
            return Rollout(
                request.task,
                contexts,
                tuple(turns),
                0.0,
                End.OUT_OF_TOKENS,
                error=str(problem),
                opening=opening,
            )
        context, answer = made.node(context), renderer.text(made.said)
        try:
            step = await env.step(step.state, thought + put + answer)
        except EnvFault as fault:
            turns.append(Turn(context, answer))
            end, reward, error = fault.end, 0.0, str(fault)
        else:
            turns.append(Turn.of(context, answer, step))
            end, reward, error = step.end or End.OUT_OF_TURNS, float(step.reward), ""
        return Rollout(
            request.task, (context,), tuple(turns), reward, end, error=error, opening=opening
        )
