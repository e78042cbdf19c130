"""One reward for a team: both who answered earn the sum, the same number. CORY, arXiv:2410.06101.

Each with its own reward they would be two learners that happen to share a prompt. With the sum, the
pioneer is paid for what the observer makes of its answer; where the observer takes no notice, the
other's reward is noise of mean 0, which a baseline takes off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ludus.rollouts.two_roles import OBSERVER, PIONEER
from ludus.types import End, Group, Reward, Rollout


@dataclass(frozen=True)
class Team:
    """A reward for groups: `own` of each rollout, then the team's; terms["own"] keeps the former.

        r = r(pioneer) + weight * r(observer)

    The n-th pioneer of a group and the n-th observer are a team. Where one of them was lost to a
    fault, the other cannot be scored either.
    """

    own: Reward
    weight: float = 1.0

    roles = (PIONEER, OBSERVER)

    async def __call__(self, groups: Sequence[Group]) -> list[Group]:
        return [shared(group, weight=self.weight) for group in await self.own(groups)]


def shared(group: Group, *, weight: float = 1.0) -> Group:
    """The group with the rewards of its teams; ValueError where somebody has no partner."""
    of_role = {
        role: [i for i, rollout in enumerate(group.rollouts) if rollout.agent == role]
        for role in (PIONEER, OBSERVER)
    }
    pioneers, observers = of_role.values()
    if len(pioneers) != len(observers) or 2 * len(pioneers) != len(group.rollouts):
        raise ValueError(
            f"group {group.key!r} has {len(pioneers)} pioneers, {len(observers)} observers and "
            f"{len(group.rollouts)} rollouts in all; a team reward wants one observer for each pioneer and nobody "
            "else, as rollouts.two_roles makes them"
        )
    paid = list(group.rollouts)
    for pair in zip(pioneers, observers, strict=True):
        first, second = (group.rollouts[i] for i in pair)
        team = first.reward + weight * second.reward
        for i, partner in zip(pair, (second, first), strict=True):
            paid[i] = _paid(group.rollouts[i], partner, team)
    return replace(group, rollouts=tuple(paid))


def _paid(rollout: Rollout, partner: Rollout, team: float) -> Rollout:
    if not rollout.end.scorable:
        return rollout
    if not partner.end.scorable:
        told = f"its {partner.agent} was lost ({partner.end}), so there is no reward of the team"
        return replace(rollout, reward=0.0, end=End.JUDGE_ERROR, error=told)
    return replace(rollout, reward=team, terms={**rollout.terms, "own": rollout.reward})
