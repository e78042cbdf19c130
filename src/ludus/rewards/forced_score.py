"""Reward without a verifier: how probable the reference answer is after the policy's own reasoning.

RLPR, arXiv:2506.18254. The reference takes the place of the answer that was given, the reasoning
stays, and one pass of the current policy tells the probability of each of its tokens (measured by
rollouts.forced_answer). What the policy would have given without any reasoning is taken off, so an
answer that is easy to guess earns nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ludus.types import Group, Rollout

SIGNAL = "reference_logp"  # in Rollout.signals: [L] log-probabilities, from rollouts.forced_answer

TAGS = ("think", "answer")


def mean_probability(logp: np.ndarray) -> float:
    """(1/L) sum_j p_j; 0 for no tokens.

    The mean of probabilities: one unlikely token, a synonym say, costs its share and not the whole,
    as it would in a product or in exp of the mean logarithm.
    """
    return float(np.exp(np.asarray(logp, dtype=np.float64)).mean()) if len(logp) else 0.0


def well_formed(text: str, tags: Sequence[str] = TAGS) -> bool:
    """Whether each tag is opened and closed exactly once, one after the other.

    Base models that never learnt to think use ("answer",) alone.
    """
    marks = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    places = [text.find(mark) for mark in marks]
    return all(text.count(mark) == 1 for mark in marks) and places == sorted(places)


def answered(text: str, tag: str = "answer") -> bool:
    """Whether something other than whitespace stands in the answer."""
    found = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return found is not None and bool(found[1].strip())


def repeats(text: str, *, words: int = 10, times: int = 10) -> bool:
    """Whether some window of `words` words occurs at least `times` times."""
    said = text.split()
    windows = Counter(tuple(said[i : i + words]) for i in range(len(said) - words + 1))
    return any(count >= times for count in windows.values())


def composed(
    probability: float, without: float, *, formed: bool, share: float = 0.1, repeated: bool = False
) -> float:
    """(1 - share) max(0, probability - without) + share [formed] - [repeated].

    probability  of the reference after the reasoning; 0 where the format is wrong or no answer given
    without      the same directly after the prompt, by the first weights, measured once
    """
    return (1 - share) * max(0.0, probability - without) + share * formed - float(repeated)


@dataclass(frozen=True)
class ForcedScore:
    """A reward for groups, of single answers: `composed`, with its parts as terms.

    without  id of a task -> probability of its reference without reasoning

    Raises ValueError where the reference was not scored, or a task has no such probability.
    """

    without: Mapping[str, float]
    share: float = 0.1
    tags: tuple[str, ...] = TAGS

    needs = (SIGNAL,)

    async def __call__(self, groups: Sequence[Group]) -> list[Group]:
        return [
            replace(group, rollouts=tuple(self._rewarded(rollout) for rollout in group.rollouts))
            for group in groups
        ]

    def _rewarded(self, rollout: Rollout) -> Rollout:
        if not rollout.end.scorable:
            return rollout
        name, logp = rollout.task.id, rollout.signals.get(SIGNAL)
        if logp is None or name not in self.without:
            raise ValueError(
                f"task {name!r} lacks "
                + ("the score of its reference" if logp is None else "an r'")
                + "; give the recipe strategy=ForcedAnswer(...) and without=..., of ludus.rollouts.forced_answer"
            )
        text = "".join(turn.action for turn in rollout.turns)
        formed, repeated = well_formed(text, self.tags), repeats(text)
        given = formed and answered(text, self.tags[-1])
        probability = mean_probability(logp) if given else 0.0
        reward = composed(
            probability, self.without[name], formed=formed, share=self.share, repeated=repeated
        )
        terms = {
            **rollout.terms,
            "probability": probability,
            "without": self.without[name],
            "format": float(formed),
            "repeated": -float(repeated),
        }
        return replace(rollout, reward=reward, terms=terms)
