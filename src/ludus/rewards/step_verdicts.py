"""A generative verifier's verdicts on every step and on the whole, and what both sides earn by them.

RL Tango, arXiv:2505.15034. The generator writes <step>...</step> blocks; the verifier answers

    <step_verification><step>... \\boxed{CORRECT}</step> ...</step_verification>
    <final_verification>\\boxed{INCORRECT}</final_verification>

with one block per step of the solution. Only its final verdict is ever compared with the truth; its
step verdicts become process rewards of the generator (advantages.channels).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_END = r"\\box(?:ed)?\{(CORRECT|INCORRECT)\}\s*(?:\.\s*)?"
_JUDGED = re.compile(_END + "$", re.I)
_ALONE = re.compile(r"\s*" + _END, re.I)
_NEXT = re.compile(r"</step_verification>\s*<final_verification>")


@dataclass(frozen=True)
class Verification:
    """What a verifier said, parsed; never an exception, whatever it wrote.

    steps      True for each step found correct; steps without a verdict are left out
    final      of the whole solution; None if it was not given in its form
    formed     the two blocks are there, one behind the other, and nothing else
    tidy       nothing but steps stands in the first block
    concluded  the second block ends in a verdict, whatever stands before it
    """

    steps: tuple[bool, ...]
    final: bool | None
    formed: bool
    tidy: bool
    concluded: bool
    blocks: int


def parse(text: str) -> Verification:
    """In time linear in the text, which may repeat a tag thousands of times."""
    first, _ = _between(text, "step_verification")
    blocks, around = _between(first[0], "step") if first else ([], "")
    judged = [_JUDGED.search(block.strip()) for block in blocks]
    last, _ = _between(text, "final_verification")
    alone = _ALONE.fullmatch(last[0]) if last else None
    return Verification(
        steps=tuple(match[1].upper() == "CORRECT" for match in judged if match),
        final=alone[1].upper() == "CORRECT" if alone else None,
        formed=_formed(text.strip()),
        tidy=bool(first) and not around.strip(),
        concluded=bool(last) and _JUDGED.search(last[0].strip()) is not None,
        blocks=len(blocks),
    )


def steps_of(solution: str) -> int:
    """How many steps a solution has."""
    return len(_between(solution, "step")[0])


def _between(text: str, tag: str) -> tuple[list[str], str]:
    """What stands between each opening tag and the next closing one, and the text around all of these."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    inside, around, at = list[str](), list[str](), 0
    while (start := text.find(opening, at)) >= 0:
        end = text.find(closing, start)
        if end < 0:
            break
        inside.append(text[start + len(opening) : end])
        around.append(text[at:start])
        at = end + len(closing)
    return inside, "".join([*around, text[at:]])


def _formed(text: str) -> bool:
    first, last = "<step_verification>", "</final_verification>"
    if not (text.startswith(first) and text.endswith(last)):
        return False
    return _NEXT.search(text, len(first), len(text) - len(last)) is not None


def step_rewards(said: Verification, steps: int) -> list[float] | None:
    """+1/K or -1/K for each of the K steps of a solution; None unless exactly K verdicts were given."""
    if not steps or len(said.steps) != steps:
        return None
    return [(1.0 if good else -1.0) / steps for good in said.steps]


def verifier_format(said: Verification, steps: int, *, solution_format: float = 1.0) -> float:
    """1 less what is wrong with the form, at least 0; 0 where the outer structure is missing.

    -0.8 the second block does not end in a verdict; -0.8 no steps, or not one verdict for each step
    of the solution (not asked where the solution's own format is below 0.6); -0.4 text between steps.
    """
    if not said.formed:
        return 0.0
    score = 1.0 - 0.8 * (not said.concluded) - 0.4 * (not said.tidy)
    miscounted = solution_format >= 0.6 and len(said.steps) != steps
    return max(0.0, score - 0.8 * (not said.blocks or miscounted))


def verifier_reward(
    said: Verification, truth: bool, steps: int, *, solution_format: float = 1.0, share: float = 0.8
) -> float:
    """[final verdict = truth] + share * format; 0 where no final verdict was given, format or not.

    truth  whether the solution's answer is right. An absent verdict is no luck: it earns nothing
    even where the solution was wrong.
    """
    if said.final is None:
        return 0.0
    return float(said.final == truth) + share * verifier_format(
        said, steps, solution_format=solution_format
    )
