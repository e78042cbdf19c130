"""A strategy, some of whose turns are read and compared with, but not learnt from.

The rewards stay in the statistics of the group; the tokens are prompt to the learner, and the mean over tokens counts
the others alone. Which turns, is known when the attempt has ended: those of an attempt that was cut off (SUPO,
arXiv:2510.06727), or summaries, for the control that does not train them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ludus.types import Group, Key, Node, Request, Rollout, Sampler, Strategy, Turn
from ludus.weights.finished import finished


@dataclass(frozen=True)
class Untrained:
    """turns: (rollout, turn) -> whether this turn is not learnt from."""

    strategy: Strategy
    turns: Callable[[Rollout, Turn], bool]

    gives = ()

    async def __call__(
        self, request: Request, sampler: Sampler, env: Any, key: Key
    ) -> Sequence[Rollout]:
        made = await self.strategy(request, sampler, env, key)
        rollouts = [made] if isinstance(made, Rollout) else made
        return [without(rollout, self.turns) for rollout in rollouts]


def cut_off(rollout: Rollout, turn: Turn) -> bool:
    """Every turn of an attempt that ran out of turns or of tokens."""
    return not bool(finished([Group("", (rollout,))]).all())


def summaries(rollout: Rollout, turn: Turn) -> bool:
    """What rollouts.summarise wrote to go on from."""
    return bool(turn.info.get("summary"))


def without(rollout: Rollout, turns: Callable[[Rollout, Turn], bool]) -> Rollout:
    """The same rollout with these turns' nodes not trainable; a node in several contexts stays one node."""
    dropped = {turn.node for turn in rollout.turns if turns(rollout, turn)}
    if not dropped:
        return rollout
    new: dict[Node | None, Node | None] = {None: None}
    for leaf in rollout.contexts:
        for node in leaf.chain():
            if node not in new:
                new[node] = replace(
                    node,
                    parent=new[node.parent],
                    origin=new.get(node.origin, node.origin),
                    trainable=node.trainable and node not in dropped,
                )
    contexts = tuple(node for leaf in rollout.contexts if (node := new[leaf]) is not None)
    played = tuple(replace(turn, node=new[turn.node] or turn.node) for turn in rollout.turns)
    return replace(rollout, contexts=contexts, turns=played)
