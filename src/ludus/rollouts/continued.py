"""One answer that may go on from a beginning: the roll-outs of ReST-GRPO, arXiv:2508.19576.

The beginning stands in the answer's place and is not learnt from; the environment judges it and what was sampled
behind it as one text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ludus.envs.guard import EnvFault, Guarded
from ludus.rollouts.episode import played
from ludus.rollouts.forced import encode
from ludus.search.prefixes import completion_reward
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
    Task,
    Turn,
)

BEGUN = "begun"  # of a task's extras: the text that the answer begins with


def begun_by(task: Task, text: str) -> Task:
    """The task with the beginning of its answer given."""
    return replace(task, extras={**task.extras, BEGUN: text})


def behind(renderer: Any, context: Node, text: str) -> Node:
    """The context with a text behind it that nobody sampled here; itself where there is none."""
    return Node(context, encode(renderer, text), role="template") if text.strip() else context


@dataclass(frozen=True)
class Continued:
    """One turn. Reward: the environment's, and 0.001 for an answer that came to its end (`completion_reward`).

    The end of the turn is the stop string here, so nothing can trail behind it.
    """

    sampling: Sampling = field(default_factory=Sampling)

    gives = ("reward", "turn_reward", "guidance", "one context", "one prompt", BEGUN)
    roles = ()

    async def __call__(
        self, request: Request, sampler: Sampler, env: Guarded | None, key: Key
    ) -> Rollout:
        return await played("Continued", request, env, partial(self._answer, request, sampler, key))

    async def _answer(
        self, request: Request, sampler: Sampler, key: Key, env: Guarded, step: Step
    ) -> Rollout:
        task, renderer = request.task, sampler.renderer
        begun = str(task.extras.get(BEGUN, ""))
        opening = (*task.prompt, *request.guidance, Message("user", step.observation))
        context = behind(renderer, renderer.open(opening), begun)
        try:
            completion = await sampler.generate(context, self.sampling, key / "turn" / 0)
        except ContextTooLong as problem:
            return Rollout(task, (), (), 0.0, End.OUT_OF_TOKENS, error=str(problem))
        node = completion.node(context)
        said, stopped = renderer.text(completion.said), completion.finish == "stop"
        try:
            step = await env.step(step.state, begun + said)
        except EnvFault as fault:
            turn = Turn(node, said)
            return Rollout(task, (node,), (turn,), 0.0, fault.end, error=str(fault))
        turn = Turn(node, said, Message("user", step.observation).text, step.reward)
        return Rollout(
            task,
            (node,),
            (turn,),
            completion_reward(step.reward, stopped, 0),
            step.end or End.FAILED,
            terms={"passed": step.reward, "stopped": float(stopped)},
            opening=opening,
        )
