"""Hints written from the right answer: abstract, and without the answer. NuRL, arXiv:2509.25666.

Made once before training, by the policy itself or by a better model: first it explains why the
answer is right, then it states the knowledge behind that, and nothing of the solution. What leaks
the answer is written again or dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ludus.types import ContextTooLong, Key, Message, Node, Sampler, Sampling, Task

EXPLAIN = "The correct answer is {answer}. Explain why it is correct."
ABSTRACT = (
    "State in one or two sentences the core knowledge that solves this problem. Be abstract: give no "
    "steps, no numbers of this problem, and not the answer."
)


def leaks(hint: str, answers: Sequence[str]) -> bool:
    """Whether a hint spells one of the answers: case, punctuation and spacing aside, as whole words."""
    said = f" {_normal(hint)} "
    return any(f" {wanted} " in said for answer in answers if (wanted := _normal(answer)))


def shortened(hint: str, longest: int) -> str:
    """The hint, or its first whole sentences of at most `longest` characters; "" if not even one fits."""
    hint = hint.strip()
    if len(hint) <= longest:
        return hint
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)", hint) if match.end() <= longest]
    return hint[: ends[-1]] if ends else ""


async def write_hint(
    task: Task,
    answers: Sequence[str],
    sampler: Sampler,
    key: Key,
    *,
    sampling: Sampling | None = None,
    longest: int = 400,
    tries: int = 4,
) -> str | None:
    """A hint for `task`, or None if none of `tries` was free of the answer.

    answers  every way to write the right answer; the first one is explained
    """
    renderer = sampler.renderer
    sampling = sampling or Sampling()
    for attempt in range(tries):
        said: list[Message] = [*task.prompt, Message("user", EXPLAIN.format(answer=answers[0]))]
        name = key / "hint" / task.id / attempt
        try:
            context: Node = renderer.open(said)
            explained = await sampler.generate(context, sampling, name / "explain")
            said.append(Message("assistant", renderer.text(explained.tokens)))
            said.append(Message("user", ABSTRACT))
            written = await sampler.generate(renderer.open(said), sampling, name / "abstract")
        except ContextTooLong:
            return None
        hint = shortened(renderer.text(written.tokens), longest)
        if hint and not leaks(hint, answers):
            return hint
    return None


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
