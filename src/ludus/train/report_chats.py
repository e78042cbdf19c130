"""The trajectories of a report: which tasks are shown, and what a model wrote made harmless to read."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ludus.train.charts import figure
from ludus.types import Image, Rollout

SHOWN = 12  # tasks
LONGEST = 20_000  # signs of one message; the rest is in trajectories.parquet

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def readable(text: str, longest: int = LONGEST) -> str:
    """Text that a model or an environment wrote, harmless to a page's layout: signs that command a terminal, turn
    the direction of writing or are no characters at all appear as their numbers, and what is very long is cut."""
    text = text.replace("\r\n", "\n")
    shown = _UNSEEN.sub(lambda sign: f"‹{ord(sign[0]):04X}›", text[:longest])
    if len(text) > longest:
        shown += f"\n… {len(text) - longest:,} more signs, in trajectories.parquet"
    return shown


KINDS = ("newly solved", "no longer solved", "solved both times", "missed both times")
Pair = tuple[Rollout, Rollout]


def pick(
    before: Sequence[Rollout], after: Sequence[Rollout], count: int = SHOWN
) -> list[tuple[str, Pair]]:
    """`count` tasks that both attempted, in proportion to what became of them, at least one of each kind.

    The first attempt of each is shown, and tasks are taken evenly from the list: nothing is chosen by its looks.
    """
    kinds = _kinds(before, after)
    total = sum(map(len, kinds.values()))
    quota = {k: max(1, round(count * len(v) / total)) if v else 0 for k, v in kinds.items()}
    while sum(quota.values()) > count:
        quota[max(quota, key=lambda k: quota[k])] -= 1
    chosen = []
    for kind, pairs in kinds.items():
        some = min(quota[kind], len(pairs))
        chosen += [(kind, pairs[i * len(pairs) // some]) for i in range(some)]
    return chosen


def _kinds(before: Sequence[Rollout], after: Sequence[Rollout]) -> dict[str, list[Pair]]:
    firsts = [{r.task.id: r for r in reversed(side)} for side in (before, after)]
    kinds: dict[str, list[Pair]] = {kind: [] for kind in KINDS}
    for task in dict.fromkeys(r.task.id for r in before):
        if task in firsts[1]:
            pair = firsts[0][task], firsts[1][task]
            was, now = (rollout.solved for rollout in pair)
            kinds[
                KINDS[{(False, True): 0, (True, False): 1, (True, True): 2}.get((was, now), 3)]
            ].append(pair)
    return kinds


def choice(
    picked: Sequence[tuple[str, Pair]], before: Sequence[Rollout], after: Sequence[Rollout]
) -> str:
    """Which tasks are shown, and of how many, in one sentence."""
    kinds, shown = _kinds(before, after), Counter(kind for kind, _ in picked)
    parts = [f"{shown[kind]} of {len(pairs)} {kind}" for kind, pairs in kinds.items() if pairs]
    return (
        f"{len(picked)} of {sum(map(len, kinds.values()))} held-out tasks, taken evenly from each kind "
        f"({', '.join(parts)}), the first attempt at each."
    )


def task(before: Rollout, after: Rollout) -> dict[str, Any]:
    """Both attempts at a task, as the page shows them."""
    opening = [
        {"role": message.role, "parts": [_part(part) for part in message.content]}
        for message in after.opening
    ]
    return {
        "id": readable(after.task.id),
        "difficulty": f"{after.task.difficulty:g}" if after.task.difficulty else "",
        "opening": opening,
        "opening_short": sum(len(message.text) for message in after.opening) < 1500,
        "before": _side(before),
        "after": _side(after),
    }


def _side(rollout: Rollout) -> dict[str, Any]:
    return {
        "end": str(rollout.end),
        "kind": "solved" if rollout.solved else "missed" if rollout.end.scorable else "lost",
        "reward": figure(rollout.reward),
        "error": readable(rollout.error),
        "tokens": f"{sum(len(turn.node.tokens) for turn in rollout.turns):,}",
        "turns": [
            {
                "action": readable(turn.action) or "(nothing)",
                "observation": [readable(turn.observation), *map(_part, turn.pictures)],
                "reward": figure(turn.reward) if turn.reward else "",
            }
            for turn in rollout.turns
        ],
    }


def _part(part: str | Image) -> str | dict[str, str]:
    if isinstance(part, str):
        return readable(part)
    kind = "image/png" if part.data.startswith(b"\x89PNG") else "image/jpeg"
    return {"kind": kind, "image": base64.b64encode(part.data).decode()}
