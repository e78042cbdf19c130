"""A strategy, and how probable the reference answer was in the place of the one that it gave.

RLPR, arXiv:2506.18254. Of what was sampled everything up to the answer tag and the whitespace after
it is kept, as ids as far as they go; the reference is encoded behind it. rewards.forced_score makes
the reward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ludus.rewards.forced_score import SIGNAL, mean_probability
from ludus.rollouts.forced import encode, forced_score
from ludus.rollouts.gain import reference
from ludus.types import ContextTooLong, Key, Request, Rollout, Sampler, Strategy, Task


@dataclass(frozen=True)
class ForcedAnswer:
    """Scores the reference answer in the last turn of each rollout: signals["reference_logp"], [L].

    opening   what opens the answer; a turn without it has no log-probabilities, so reward 0
    """

    strategy: Strategy
    opening: str = "<answer>"
    answer: Callable[[Task], str] = reference

    gives = (SIGNAL,)

    async def __call__(
        self, request: Request, sampler: Sampler, env: Any, key: Key
    ) -> Sequence[Rollout]:
        made = await self.strategy(request, sampler, env, key)
        rollouts = [made] if isinstance(made, Rollout) else made
        return [await self._measured(rollout, sampler) for rollout in rollouts]

    async def _measured(self, rollout: Rollout, sampler: Sampler) -> Rollout:
        if not rollout.end.scorable or not rollout.turns:
            return rollout
        node, logp = rollout.turns[-1].node, np.zeros(0, np.float32)
        assert node.parent is not None  # what was sampled continues a prompt
        kept = up_to_answer(sampler.renderer, node.tokens, self.opening)
        if kept is not None:
            with suppress(ContextTooLong):  # no room for the reference: it counts as improbable
                before, space = kept
                text = space + self.answer(rollout.task)
                logp = await forced_score(sampler, node.parent, before, text)
        return replace(rollout, signals={**rollout.signals, SIGNAL: logp})


def up_to_answer(renderer: Any, tokens: np.ndarray, opening: str) -> tuple[np.ndarray, str] | None:
    """What was sampled up to the last `opening` and the whitespace after it; None if it is not there.

    The sampled ids stay as they are, but for one that goes on into the answer. Of such a token
    whitespace is returned as text, since the answer may merge with it (" oak"); what it has of the
    opening (">oak") is encoded again.
    """
    text: str = renderer.text(tokens)
    at = text.rfind(opening)
    if at < 0:
        return None
    end = at + len(opening)
    wanted = text[: end + len(text[end:]) - len(text[end:].lstrip())]
    # the longest run of ids that says no more than is wanted: text grows with ids, but for a character
    # whose bytes are not complete yet, which the last lines step back from
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high + 1) // 2
        if len(renderer.text(tokens[:middle])) <= len(wanted):
            low = middle
        else:
            high = middle - 1
    while not wanted.startswith(renderer.text(tokens[:low])):
        low -= 1
    rest = wanted[len(renderer.text(tokens[:low])) :]
    cut = rest.rstrip()
    kept = tokens[:low]
    return (np.concatenate([kept, encode(renderer, cut)]) if cut else kept), rest[len(cut) :]


async def without_reasoning(
    sampler: Sampler,
    tasks: Sequence[Task],
    *,
    space: str = " ",
    answer: Callable[[Task], str] = reference,
) -> Mapping[str, float]:
    """Id of each task -> mean probability of its reference directly behind the prompt: RLPR's r'.

    To be measured once, by the first weights, and kept: measured again later it would take from the
    policy what it has learnt to know by heart.
    """
    found: dict[str, float] = {}
    for task in tasks:
        context = sampler.renderer.open(task.prompt)
        logp = await forced_score(sampler, context, "", space + answer(task))
        found[task.id] = mean_probability(logp)
    return found
