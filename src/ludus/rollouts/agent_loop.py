"""The agent loop: observe, act, observe, until the environment ends the episode or the turns run out.

AgentGym-RL, arXiv:2509.08755. What the policy emitted is kept as it was sampled; the environment's answer is appended
as one new message. A template that rewrites its past opens a new context, and the rollout then has several.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from ludus.envs.guard import EnvFault, Guarded
from ludus.rollouts.episode import played
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
class AgentLoop:
    """Up to `request.max_turns` exchanges with an environment.

    sampling  of every turn; `sampling.max_tokens` is the limit per turn
    total     the rollout's reward: the sum of its steps' rewards, or the last one (AgentGym)
    """

    sampling: Sampling = field(default_factory=Sampling)
    total: Literal["sum", "last"] = "sum"

    gives = ("reward", "turn_reward", "anchor", "guidance", "one context", "one prompt")
    roles = ()

    async def __call__(
        self, request: Request, sampler: Sampler, env: Guarded | None, key: Key
    ) -> Rollout:
        return await played(
            "an agent loop", request, env, partial(self._play, request, sampler, key)
        )

    async def _play(
        self, request: Request, sampler: Sampler, key: Key, env: Guarded, step: Step
    ) -> Rollout:
        renderer: Any = sampler.renderer
        opening = (*request.task.prompt, *request.guidance, Message("user", step.observation))
        history: list[Message] = list(opening)
        context: Node = renderer.open(history)
        contexts: list[Node] = []
        turns: list[Turn] = []
        end, error = step.end, ""
        while end is None:
            if len(turns) == request.max_turns:
                end = End.OUT_OF_TURNS
                break
            try:
                completion = await sampler.generate(
                    context, self.sampling, key / "turn" / len(turns)
                )
            except ContextTooLong as problem:
                end, error = End.OUT_OF_TOKENS, str(problem)
                break
            node = completion.node(context)
            action = renderer.text(completion.said)
            contexts[-1:] = [node] if context.parent is not None else [*contexts[-1:], node]
            try:
                step = await env.step(step.state, action)
            except EnvFault as fault:
                turns.append(Turn(node, action))
                end, error = fault.end, str(fault)
                break
            answer = Message("user", step.observation)
            turns.append(Turn.of(node, action, step))
            end = step.end
            if end is None:
                history.append(Message("assistant", action))
                context = renderer.extend(node, completion.finish, history, (answer,))
                history.append(answer)
        rewards = [turn.reward for turn in turns]
        reward = sum(rewards) if self.total == "sum" else next(reversed(rewards), 0.0)
        return Rollout(
            request.task, tuple(contexts), tuple(turns), reward, end, error=error, opening=opening
        )
