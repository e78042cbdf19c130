"""What a step came to: its costs in the units of a budget, and the metrics that one looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ludus.evals.metrics import mean
from ludus.types import EXTERNAL, End, Group, Rollout


def costs(groups: Sequence[Group]) -> dict[str, float]:
    """What was sampled, in the units of a budget."""
    rollouts = own(groups)
    turns = [turn for rollout in rollouts for turn in rollout.turns]
    tokens = sum(len(turn.node.tokens) for turn in turns)
    return {"rollouts": float(len(rollouts)), "turns": float(len(turns)), "tokens": float(tokens)}


def own(groups: Sequence[Group]) -> list[Rollout]:
    """The rollouts that were sampled here; examples by somebody else are not counted."""
    return [r for group in groups for r in group.rollouts if r.agent != EXTERNAL]


LEVELS = 10  # of difficulty, above which success is not told for each


def summary(groups: Sequence[Group]) -> dict[str, float]:
    """What one looks at: success and reward of scored rollouts, their length, and every end counted."""
    rollouts = own(groups)
    scored = [rollout for rollout in rollouts if rollout.end.scorable]
    levels = sorted({rollout.task.difficulty for rollout in scored})
    ends = Counter(rollout.end for rollout in rollouts)
    lengths = [sum(len(turn.node.tokens) for turn in r.turns) for r in scored]
    terms = sorted({name for r in scored for name in r.terms})
    roles = sorted({r.agent for r in scored})
    return {
        "success": mean(float(r.solved) for r in scored),
        **{
            f"{role}/{name}": mean(
                x for r, x in zip(scored, values, strict=True) if r.agent == role
            )
            for name, values in (
                ("success", [float(r.solved) for r in scored]),
                ("reward", [r.reward for r in scored]),
            )
            for role in (roles if len(roles) > 1 else ())
        },
        **{f"terms/{n}": mean(r.terms[n] for r in scored if n in r.terms) for n in terms},
        **{
            f"success/{level:g}": mean(
                float(r.solved) for r in scored if r.task.difficulty == level
            )
            for level in (levels if 1 < len(levels) <= LEVELS else ())
        },
        "reward": mean(r.reward for r in scored),
        "turns": mean(float(len(r.turns)) for r in scored),
        "turns/longest": float(max((len(r.turns) for r in scored), default=0)),
        "tokens/answer": mean(float(n) for n in lengths),
        "groups/mixed": mean(float(len({r.reward for r in g.rollouts}) > 1) for g in groups),
        "lost": float(len(rollouts) - len(scored)),
        **{f"end/{end}": float(ends[end]) for end in End},
    }
