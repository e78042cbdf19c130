"""An agent loop that may outlive its context: it summarises what happened, and goes on from that.

SUPO, arXiv:2510.06727. Writing the summary is an action of the policy, so the reward of the episode
reaches it like any other, and the horizon is no longer bounded by the length of a context:

    context 1   prompt, turns ..., instruction, summary 1
    context 2   prompt with summary 1, turns ..., instruction, summary 2
    context 3   prompt with summary 2, turns ..., the end

Every context is a context of its own in the rollout, whose root remembers the summary that it came
from. What a context says of the past is the summary in its prompt and nothing else. A summary is
trained where it was written; read back, it is prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from ludus.data.trace import Trace
from ludus.envs.guard import EnvFault, Guarded
from ludus.rollouts.episode import played
from ludus.types import (
    Completion,
    ContextTooLong,
    End,
    Key,
    Message,
    Node,
    Part,
    Request,
    Rollout,
    Sampler,
    Sampling,
    Step,
    Turn,
)

INSTRUCTION = (
    "Your context is full. Write down all that you need to go on: what the task asks, what you did, "
    "what you found out, what is left to do. Only this summary stays."
)
HEADING = "Summary of what happened so far:"


@dataclass(frozen=True)
class Summarise:
    """Up to `request.max_turns` exchanges with an environment, in up to summaries + 1 contexts.

    longest      tokens of a context (header of the next answer included) beyond which it is summarised
    summaries    how many; where more would be needed the episode ends, out of tokens
    overflow     the turn that made the context too long: "dropped", the summary is written without
                 it, so that no context exceeds `longest` by more than the instruction (the paper);
                 "shown", it is still read by the summary (for worlds that remember every action).
                 A context of one turn always shows it: nothing else would be left to summarise
    summary_tokens   longest summary; a summary that is cut there counts as it stands
    sampling, total  as in AgentLoop

    A summary is a turn of the rollout with info["summary"] True and no reward of its own; it is
    none of the `max_turns`.
    """

    sampling: Sampling = field(default_factory=Sampling)
    longest: int = 1024
    summaries: int = 7
    overflow: Literal["dropped", "shown"] = "dropped"
    summary_tokens: int = 256
    instruction: str = INSTRUCTION
    heading: str = HEADING
    total: Literal["sum", "last"] = "sum"

    gives = ("reward", "turn_reward", "anchor", "guidance", "one prompt")
    roles = ()

    def __post_init__(self) -> None:
        if self.summaries < 0 or self.longest < 1 or self.summary_tokens < 1:
            raise ValueError(
                f"longest={self.longest}, summaries={self.summaries}, summary_tokens={self.summary_tokens}; give "
                "positive lengths, and 0 or more summaries"
            )

    async def __call__(
        self, request: Request, sampler: Sampler, env: Guarded | None, key: Key
    ) -> Rollout:
        return await played(
            "an agent that summarises", request, env, partial(self._play, request, sampler, key)
        )

    async def _play(
        self, request: Request, sampler: Sampler, key: Key, env: Guarded, step: Step
    ) -> Rollout:
        trace = Trace(sampler.renderer)
        opening = (*request.task.prompt, *request.guidance, Message("user", step.observation))
        history: list[Message] = list(opening)
        context: Node = trace.context(history)
        turns: list[Turn] = []
        played = written = first = 0  # turns, summaries, the first turn of this context
        end, error = step.end, ""

        async def sample(context: Node, history: list[Message], name: Key, sampling: Sampling):
            completion: Completion = await sampler.generate(context, sampling, name)
            return trace.answer(context, history, completion)

        try:
            while end is None:
                if played == request.max_turns:
                    end = End.OUT_OF_TURNS
                    break
                before = list(history)
                node, action = await sample(context, before, key / "turn" / played, self.sampling)
                try:
                    step = await env.step(step.state, action)
                except EnvFault as fault:
                    turns.append(Turn(node, action))
                    end, error = fault.end, str(fault)
                    break
                answer = Message("user", step.observation)
                turns.append(Turn.of(node, action, step))
                played += 1
                end = step.end
                if end is not None:
                    break
                history += [Message("assistant", action), answer]
                context = trace.context(history)
                if context.length <= self.longest:
                    continue
                if written == self.summaries:
                    end = End.OUT_OF_TOKENS
                    error = f"the context exceeds {self.longest} tokens and {written} summaries are used up"
                    break
                dropped = self.overflow == "dropped" and played - first > 1
                asked = _asked(before if dropped else history, self.instruction)
                node, summary = await sample(
                    trace.context(asked), asked, key / "summary" / written, self._of_summary()
                )
                turns.append(Turn(node, summary, info={"summary": True}))
                written, first = written + 1, played
                history = _asked(list(opening), f"{self.heading}\n{summary}")
                context = sampler.renderer.open(history, origin=node)
        except ContextTooLong as problem:
            end, error = End.OUT_OF_TOKENS, str(problem)
        rewards = [turn.reward for turn in turns if not turn.info.get("summary")]
        reward = sum(rewards) if self.total == "sum" else next(reversed(rewards), 0.0)
        return Rollout(
            request.task, trace.contexts, tuple(turns), reward, end, error=error, opening=opening
        )

    def _of_summary(self) -> Sampling:
        """Stop strings end actions; a summary may spell them."""
        return replace(self.sampling, max_tokens=self.summary_tokens, stop=())


def _asked(history: list[Message], text: str) -> list[Message]:
    """The history with `text` at the end of its last message: not every template takes two from the user."""
    last = history[-1]
    parts: tuple[Part, ...] = (*last.content, f"\n\n{text}")
    return [*history[:-1], Message(last.role, parts)]
