"""Rewards of an answer, a reflection on it, and a second answer, all in one response. SRPO, arXiv:2506.01713.

    <think>a</think><answer>..</answer><reflection>r</reflection><think>b</think><answer>..</answer>

    R = outcome + format + alpha * length

The outcome pays for what the reflection changed, not for its presence. It also pays for a feigned mistake: a wrong
first answer on purpose, then the right one, earns more than a right answer kept (1.0 against 0.75). Where accuracy
counts the first answer alone this does not pay (0.5 against 0.75); both are here, as `counts`, and the first answers'
accuracy is a term of its own, to be watched: it must not fall.

The paper's second framework has the table too, in a chained comparison that does not say what was meant: executed, it
gives 0.75, 0, 0 and -0.25 for right-right, wrong-right, right-wrong and wrong-wrong, so that nothing is paid for a
repair. The table below is the intended one, which the first framework's code computes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from ludus.types import Group, Rollout

Counts = Literal["either", "first", "last"]

FORM = ("think", "answer", "reflection", "think", "answer")
FIRST_ATTEMPT = "first_attempt"  # in Rollout.signals: the tokens of the first think and answer
_TAG = re.compile(r"<(/?)(think|answer|reflection)>")


class Block(NamedTuple):
    name: str
    text: str
    start: int
    stop: int


def blocks(response: str) -> list[Block]:
    """Every tag that is closed before another one opens, in order, with what stands between."""
    tags = list(_TAG.finditer(response))
    return [
        Block(one[2], response[one.end() : two.start()], one.start(), two.end())
        for one, two in pairwise(tags)
        if not one[1] and two[1] and one[2] == two[2]
    ]


def attempts(response: str) -> list[str]:
    """The answers of all full pairs of a think and the answer right after it, in order."""
    return [
        two.text.strip()
        for one, two in pairwise(blocks(response))
        if (one.name, two.name) == ("think", "answer")
        and not response[one.stop : two.start].strip()
    ]


def well_formed(response: str) -> bool:
    """Exactly the five parts in their order, none of them empty, and nothing before, between or after them."""
    found = blocks(response)
    ends = [0, *(block.stop for block in found)]
    starts = [*(block.start for block in found), len(response)]
    return (
        tuple(block.name for block in found) == FORM
        and len(_TAG.findall(response)) == 2 * len(FORM)
        and all(block.text.strip() for block in found)
        and not any(response[a:b].strip() for a, b in zip(ends, starts, strict=True))
    )


class Effects(NamedTuple):
    """What is paid for the reflection, by what became of the first answer; nothing where both are wrong."""

    kept: float = 0.25
    repaired: float = 0.5
    spoiled: float = -0.25


def outcome(
    first: bool,
    second: bool,
    *,
    counts: Counts = "either",
    accuracy: float = 0.5,
    effects: Effects = Effects(),  # noqa: B008
) -> float:
    """Accuracy, and the effect of the reflection.

        (first, second)     either   first    last     what `counts`: accuracy is of
        right, right          0.75    0.75    0.75
        wrong, right          1.0     0.5     1.0
        right, wrong          0.25    0.25   -0.25
        wrong, wrong          0       0       0

    "either" is the table of the release. With effects of 0, "last" is what GRPO pays for the answer.
    """
    right = {"either": first or second, "first": first, "last": second}[counts]
    if first and second:
        effect = effects.kept
    elif second:
        effect = effects.repaired
    else:
        effect = effects.spoiled if first else 0.0
    return accuracy * right + effect


def names_the_letter(answer: str, key: str) -> bool:
    """Whether an answer to a question of choice contains the key's letter and no other capital letter of a choice.

    The release pays 1.0 for it where both answers are wrong as they stand ("B) 12 cm" for "B"). A letter stands alone:
    no letter or digit is next to it. Choices run from A to H.
    """
    found = set(re.findall(r"(?<![A-Za-z0-9])[A-H](?![A-Za-z0-9])", answer))
    return found == {key.strip()}


def length_term(length: int, first: int) -> float:
    """exp(-(|L - T| / (M - T))^2), T = 2 b, M = 2.5 b: 1 where reflection and second attempt are as long as the first.

    Args: length L of the response and b of its first think and answer, in tokens.   Returns: in (0, 1].
    """
    if first < 1:
        raise ValueError(f"a first attempt of {first} tokens has no length to compare with")
    return math.exp(-((abs(length - 2 * first) / (0.5 * first)) ** 2))


def exactly(answer: str, key: Any) -> bool:
    """The same text, however it is spaced."""
    return answer.split() == str(key).split()


@dataclass(frozen=True)
class Reflection:
    """A reward for groups of such responses, each to a task with an answer; rollouts that may not be scored stay.

    right    (answer, the task's) -> whether it is right
    counts   which answer accuracy is of, see `outcome`
    effects  paid for what the reflection changed; Effects(0, 0, 0) and counts="last" leave GRPO's accuracy
    form     paid for the five parts in their order
    alpha    weight of the length term, for which a rollout has FIRST_ATTEMPT among its signals
    release  pay nothing at all without two full attempts, as the release does; else what is left of the sum, in which a
             missing attempt is a wrong one and has no length

    Terms: "outcome", "format" and "length" add up to the reward. For the reader: whether the answers were right,
    "first" and "last", whether the reflection "repaired" or "spoiled", and what it "gained", the difference of the two.
    """

    right: Callable[[str, Any], bool] = exactly
    counts: Counts = "either"
    effects: Effects = Effects()  # noqa: RUF009
    form: float = 0.5
    alpha: float = 0.1
    release: bool = True

    @property
    def needs(self) -> tuple[str, ...]:
        return (FIRST_ATTEMPT,) if self.alpha else ()

    async def __call__(self, groups: Sequence[Group]) -> list[Group]:
        return [replace(g, rollouts=tuple(self._scored(r) for r in g.rollouts)) for g in groups]

    def _scored(self, rollout: Rollout) -> Rollout:
        if not rollout.end.scorable or not rollout.turns:
            return rollout
        said = rollout.turns[-1]
        answers = attempts(said.action)
        whole = len(answers) >= 2
        first = bool(answers) and self.right(answers[0], rollout.task.answer)
        second = whole and self.right(answers[-1], rollout.task.answer)
        paid = {"outcome": 0.0, "format": 0.0, "length": 0.0}
        if whole or not self.release:
            paid["outcome"] = outcome(first, second, counts=self.counts, effects=self.effects)
            paid["format"] = self.form * well_formed(said.action)
        if whole and self.alpha:
            start = rollout.signals[FIRST_ATTEMPT]
            paid["length"] = self.alpha * length_term(len(said.node.tokens), start)
        watched = {
            "first": float(first),
            "last": float(second),
            "repaired": float(second and not first),
            "spoiled": float(first and not second),
            "gained": float(second) - float(first),
        }
        terms = {**rollout.terms, **paid, **watched}
        return replace(rollout, reward=sum(paid.values()), terms=terms)
