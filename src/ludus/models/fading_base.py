"""A base that has seen better play: it could do what its habits do not show, and training brings it out.

A player that hardly ever knows what to do teaches a tiny model no skill that takes several parts of a context at once,
such as comparing two numbers; one that always knows leaves nothing to be learnt by reinforcement. So it sees the latter
first, and then the former for a while, as models.base does with thought.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ludus.models.world_base import WorldBase


@dataclass(frozen=True)
class FadingBase(WorldBase):
    """The player knows what to do in a share of `first` for so much of the steps as `lasts` says, then in `share`."""

    first: float = 0.95
    lasts: float = 0.8

    def texts(self) -> Iterator[list[list[str]]]:
        early = round(self.lasts * self.steps)
        yield from WorldBase.texts(replace(self, share=self.first, steps=early))
        yield from WorldBase.texts(replace(self, steps=self.steps - early, seed=self.seed + 1))
