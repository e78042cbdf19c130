"""How sure the policy was of the right answer before each turn. IGPO, arXiv:2510.14967.

    p_t = exp( (1/L) sum_j log pi(a_j | h_t, lead-in, a_<j) )

h_t is all that the policy had read when it began turn t (counted from 0: h_0 is the question), and
a the reference answer. The rollout itself is untouched: the answer is scored beside it, by the
weights that acted. The differences are the rewards of turns, see rewards.information_gain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ludus.rewards.information_gain import SIGNAL
from ludus.rollouts.forced import forced_score, geometric_probability
from ludus.types import ContextTooLong, Key, Request, Rollout, Sampler, Strategy, Task


def reference(task: Task) -> str:
    """The answer of a task, or the first of several. Errors: ValueError for a task without one."""
    several = task.answer if isinstance(task.answer, list | tuple) else [task.answer]
    if not several or several[0] is None:
        raise ValueError(
            f"task {task.id!r} has answer={task.answer!r}, which cannot be scored; give tasks with a reference answer"
        )
    return str(several[0])


@dataclass(frozen=True)
class AnswerProbability:
    """A strategy, and p before each of its turns in signals["answer_probability"].

    strategy  how an attempt is produced, such as an AgentLoop
    lead_in   ends the thinking and opens the answer, as this policy's format has it
    answer    what is scored; where several are right, one of them

    A context that leaves no room for the answer keeps the last p, so its turn gains nothing.
    """

    strategy: Strategy
    lead_in: str
    answer: Callable[[Task], str] = reference

    gives = (SIGNAL,)

    async def __call__(
        self, request: Request, sampler: Sampler, env: Any, key: Key
    ) -> Sequence[Rollout]:
        made = await self.strategy(request, sampler, env, key)
        rollouts = [made] if isinstance(made, Rollout) else made
        return [await self._measured(rollout, sampler) for rollout in rollouts]

    async def _measured(self, rollout: Rollout, sampler: Sampler) -> Rollout:
        if not rollout.end.scorable:
            return rollout
        text, p = self.answer(rollout.task), list[float]()
        for turn in rollout.turns:
            assert turn.node.parent is not None  # what was sampled continues a prompt
            try:
                logp = await forced_score(sampler, turn.node.parent, self.lead_in, text)
                p.append(geometric_probability(logp))
            except ContextTooLong:
                p.append(p[-1] if p else 0.0)
        return replace(rollout, signals={**rollout.signals, SIGNAL: tuple(p)})
