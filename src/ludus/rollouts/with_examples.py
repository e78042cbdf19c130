"""Attempts whose answer somebody else gives, as `curricula.examples` asks for them; all others as usual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ludus.curricula.examples import EXAMPLE
from ludus.envs.guard import EnvFault, Guarded
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.single_turn import SingleTurn
from ludus.types import EXTERNAL, End, Key, Message, Node, Request, Rollout, Sampler, Turn


@dataclass(frozen=True)
class WithExamples:
    """`inner`, but a task that carries an example is answered with it, in one turn, and nothing is sampled.

    The example's tokens are its text and the end of a turn, cut where the policy's own would have been; they have no
    log-probabilities. With an environment it earns what its first step gives, and without one what the recipe's reward
    does. Evaluation asks for tasks as they are, so it never meets an example.
    """

    inner: AgentLoop | SingleTurn

    gives = ("example",)

    async def __call__(
        self, request: Request, sampler: Sampler, env: Guarded | None, key: Key
    ) -> Rollout:
        said = request.task.extras.get(EXAMPLE)
        if said is None:
            return await self.inner(request, sampler, env, key)
        opening = (*request.task.prompt, *request.guidance)
        if env is None:
            node, text = self._write(said, sampler.renderer, opening)
            return _rollout(request, opening, Turn(node, text), End.FAILED)
        try:
            step = await env.reset(request.task, request.seed)
        except EnvFault as fault:
            return Rollout(request.task, (), (), 0.0, fault.end, error=str(fault), agent=EXTERNAL)
        try:
            opening = (*opening, Message("user", step.observation))
            node, text = self._write(said, sampler.renderer, opening)
            try:
                step = await env.step(step.state, text)
            except EnvFault as fault:
                return _rollout(request, opening, Turn(node, text), fault.end, str(fault))
            turn = Turn.of(node, text, step)
            return _rollout(request, opening, turn, step.end or End.OUT_OF_TURNS)
        finally:
            await env.leave(step.state)

    def _write(self, said: str, renderer: Any, opening: tuple[Message, ...]) -> tuple[Node, str]:
        """The example as a node, and its text as far as it was not cut."""
        ids = renderer.tokenizer(said, add_special_tokens=False)["input_ids"]
        ended = [*ids, renderer.tokenizer.eos_token_id]
        tokens = np.array(ended[: self.inner.sampling.max_tokens], np.int64)
        node = Node(renderer.open(opening), tokens, trainable=True, role=EXTERNAL)
        return node, renderer.text(tokens)


def _rollout(
    request: Request, opening: tuple[Message, ...], turn: Turn, end: End, error: str = ""
) -> Rollout:
    return Rollout(
        request.task,
        (turn.node,),
        (turn,),
        turn.reward,
        end,
        agent=EXTERNAL,
        error=error,
        opening=opening,
    )
