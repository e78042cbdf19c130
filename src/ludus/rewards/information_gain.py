"""Reward of a turn: by how much it raised the policy's own probability of the right answer.

IGPO, arXiv:2510.14967. The probabilities come from rollouts.gain, which measures them while the
weights are still those that acted; here they become rewards.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ludus.rewards.overlap import token_f1
from ludus.types import Group, Rollout

SIGNAL = "answer_probability"  # in Rollout.signals: p before each turn, from rollouts.gain

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_TAGS = ("think", "tool_call", "answer")
_SPACES = str.maketrans(dict.fromkeys(string.punctuation, " "))


def turn_rewards(p: Sequence[float], outcome: float) -> list[float]:
    """r_t = p_{t+1} - p_t for every turn but the last, whose reward is the outcome.

    p [T]: the probability of the answer before each of the T turns; the gains add up to
    p_{T-1} - p_0. Not clipped: a turn that misled the policy loses.
    """
    if not p:
        return []
    return [after - before for before, after in pairwise(p)] + [outcome]


def balanced(text: str, tags: Sequence[str] = _TAGS) -> bool:
    """Whether every opened tag is closed before it is opened again, and nothing else is closed."""
    for tag in tags:
        marks = re.findall(f"</?{re.escape(tag)}>", text)
        if marks != [f"<{tag}>", f"</{tag}>"] * (len(marks) // 2):
            return False
    return True


def answer_f1(text: str, references: Sequence[str], *, penalty: float = -2.0) -> float:
    """Token F1 of the first answer tag, the best over the references, punctuation aside.

    `penalty` where tags are not balanced or no answer is given; -2 is the release's, which also
    compares sets of words where F1 counts them.
    """
    if not balanced(text):  # first, as the search takes long where tags are opened and never closed
        return penalty
    found = _ANSWER.search(text)
    if found is None:
        return penalty
    said = found[1].translate(_SPACES)
    return max(token_f1(said, reference.translate(_SPACES)) for reference in references)


@dataclass(frozen=True)
class InformationGain:
    """A reward for groups: fills the reward of every turn, and the outcome as the rollout's.

    outcome  of a rollout, for instance answer_f1 of all that it said; its terms are kept apart

    Raises ValueError for a rollout whose probabilities were not measured.
    """

    outcome: Callable[[Rollout], float]

    needs = (SIGNAL,)
    gives = ("turn_reward",)

    async def __call__(self, groups: Sequence[Group]) -> list[Group]:
        return [
            replace(group, rollouts=tuple(self._rewarded(rollout) for rollout in group.rollouts))
            for group in groups
        ]

    def _rewarded(self, rollout: Rollout) -> Rollout:
        if not rollout.end.scorable:
            return rollout
        p = rollout.signals.get(SIGNAL)
        if p is None or len(p) != len(rollout.turns):
            came = "none" if p is None else str(len(p))
            raise ValueError(
                f"task {rollout.task.id!r} has {len(rollout.turns)} turns and {came} answer probabilities; "
                "give the recipe strategy=AnswerProbability(...), from ludus.rollouts.gain"
            )
        outcome = self.outcome(rollout)
        earned = turn_rewards(p, outcome)
        turns = tuple(
            replace(turn, reward=reward) for turn, reward in zip(rollout.turns, earned, strict=True)
        )
        terms = {**rollout.terms, "outcome": outcome, "gain": sum(earned[:-1])}
        return replace(rollout, turns=turns, reward=outcome, terms=terms)
