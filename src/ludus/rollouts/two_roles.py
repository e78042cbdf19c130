"""A pioneer answers, an observer answers having read that, and both earn the sum. CORY, arXiv:2410.06101.

What the pioneer says is worth its own reward and what it teaches the observer. Each is a learner of
its own, on its own context: the observer's policy, value and reference all read the pioneer's
answer. The roles are swapped by curricula.roles.Swapping; the reward is shared by rewards.team.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ludus.rollouts.single_turn import SingleTurn
from ludus.types import Key, Message, Request, Rollout, Sampler, Sampling

PIONEER, OBSERVER = "pioneer", "observer"

SECOND_LOOK = (
    'Another answer to the same question was:\n"{said}"\nIt may be wrong. Give your own answer.'
)


@dataclass(frozen=True)
class PioneerObserver:
    """Two rollouts of an attempt, pioneer first: told apart by `agent`, joined by their order in the group.

    sampling  of both
    look      how the pioneer's answer is put to the observer, behind the question; "{said}" is the answer

    `sampler` is one policy for both roles, or a mapping from role to sampler. An empty answer, or
    one that was lost, is not shown: the observer then has the question alone.
    """

    sampling: Sampling = field(default_factory=Sampling)
    look: str = SECOND_LOOK

    gives = ("guidance", "one context")  # not one prompt: observers read different answers
    roles = (PIONEER, OBSERVER)

    def __post_init__(self) -> None:
        if "{said}" not in self.look:
            raise ValueError(
                f"look={self.look!r} has no place for the answer; put {{said}} into it"
            )

    async def __call__(
        self, request: Request, sampler: Sampler | Mapping[str, Sampler], env: object, key: Key
    ) -> Sequence[Rollout]:
        single = SingleTurn(self.sampling)
        first = await single(request, _of(sampler, PIONEER), env, key / PIONEER)
        said = first.turns[-1].action if first.turns else ""
        shown = replace(request, guidance=(*request.guidance, *self.shown(said)))
        second = await single(shown, _of(sampler, OBSERVER), env, key / OBSERVER)
        return [replace(first, agent=PIONEER), replace(second, agent=OBSERVER)]

    def shown(self, said: str) -> tuple[Message, ...]:
        """What the observer reads of the pioneer's answer. Not by str.format: an answer may hold braces."""
        return (Message("user", self.look.replace("{said}", said)),) if said.strip() else ()


def _of(sampler: Sampler | Mapping[str, Sampler], role: str) -> Sampler:
    if not isinstance(sampler, Mapping):
        return sampler
    if role not in sampler:
        raise ValueError(f"there are samplers for {sorted(sampler)}; give one for {role!r} too")
    return sampler[role]
