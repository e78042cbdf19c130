"""A base for the actor of the critiques world: it answers again, and does what the critique says.

It is shown critiques of all kinds, right and wrong alike, so that it follows any: what it makes of a problem is worth
what the critique is worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ludus.envs.small.critiques import Critiques, State, advised, problem, shown, spelled
from ludus.envs.world import mixed, one_of
from ludus.models import tiny
from ludus.models.world_base import WorldBase
from ludus.types import Key


@dataclass(frozen=True)
class ActorBase(WorldBase):
    """A `share` of the critiques that it reads is the expert's. Each text: problem, first answer, critique, second."""

    def __post_init__(self) -> None:
        if not isinstance(self.world, Critiques):
            raise ValueError(
                f"an ActorBase reads critiques, and {self.world.name} has none; take a WorldBase"
            )

    def texts(self) -> Iterator[list[list[str]]]:
        world = self.world
        assert isinstance(world, Critiques)
        starts = [world.start("train", index) for index in range(world.train)]
        critic = mixed(world, self.share)
        for step in range(self.steps):
            rng = (Key(self.seed) / "actor base" / step).generator()
            chosen = [one_of(rng, starts) for _ in range(self.games)]
            yield [context(state, critic(state, rng)) for state in chosen]


def context(state: State, critique: str) -> list[str]:
    """What the actor reads, and what it says, in the template of tiny tokenizers."""
    asked = f"<|user|>{problem(state)}{tiny.END}<|assistant|>{spelled(state.attempt)}{tiny.END}"
    read = f"{asked}<|user|>{shown(critique)}{tiny.END}<|assistant|>"
    return [read, f"{spelled(advised(state, critique))}{tiny.END}"]
