"""The programmatic reward of ludus.envs.small.praise: what an answer is worth, and how varied a group's answers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ludus.envs.small.praise import Praise
from ludus.evals.distinct import distinct
from ludus.rollouts.two_roles import OBSERVER
from ludus.types import End, Group, Rollout


@dataclass(frozen=True)
class Gold:
    """A reward for groups: the worth of the answer, whatever else its author has read. SOLVED from the world's bar on.

    terms["gold"]      its worth; an observer's stands apart, as terms["gold/observer"], so that the mean of "gold" is
                       what policies earn that answer alone
    terms["distinct"]  distinct-2 of all such answers of its group
    """

    world: Praise

    async def __call__(self, groups: Sequence[Group]) -> list[Group]:
        return [self.paid(group) for group in groups]

    def paid(self, group: Group) -> Group:
        varied = distinct(_said(r) for r in group.rollouts if r.agent != OBSERVER)

        def judged(rollout: Rollout) -> Rollout:
            if not rollout.end.scorable:
                return rollout
            gold = self.world.gold(self.world.state(rollout.task), _said(rollout))
            terms = {"gold": gold, "distinct": varied}
            if rollout.agent == OBSERVER:
                terms = {"gold/observer": gold}
            end = End.SOLVED if gold >= self.world.bar else rollout.end
            return replace(rollout, reward=gold, end=end, terms={**rollout.terms, **terms})

        return replace(group, rollouts=tuple(judged(rollout) for rollout in group.rollouts))


def _said(rollout: Rollout) -> str:
    return rollout.turns[-1].action if rollout.turns else ""
