"""A base for lines of praise: it writes short lines in answer to a query, with or without another's line to look at.

`WorldBase` plays a world from its observation on; here the whole query opens the conversation, and half of the texts
have a second message with somebody's line, as rollouts.two_roles shows it to an observer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ludus.envs.small.praise import LOOK, Praise, State
from ludus.envs.world import one_of
from ludus.models import tiny
from ludus.models.world_base import WorldBase
from ludus.types import Key


@dataclass(frozen=True)
class PraiseBase(WorldBase):
    """Each word is one of the best third with probability `share`, and else any.

    lengths  fewest and most words of a line; more are never seen
    copied   of the words of a second line, those that are the first one's at the same place
    """

    lengths: tuple[int, int] = (2, 5)
    copied: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.world, Praise):
            raise ValueError(f"a PraiseBase plays Praise, not {self.world.name}; take a WorldBase")

    def texts(self) -> Iterator[list[list[str]]]:
        world = self.world
        assert isinstance(world, Praise)
        pairs = world.pairs("train")
        for step in range(self.steps):
            rng = (Key(self.seed) / "praise base" / step).generator()
            yield [self.text(State(*one_of(rng, pairs)), rng) for _ in range(self.games)]

    def text(self, state: State, rng: np.random.Generator) -> list[str]:
        """Prompt and line."""
        world = self.world
        assert isinstance(world, Praise)
        line = self.line(state, rng)
        opening = f"<|user|>{world.query(state)}{tiny.END}"
        if rng.random() < 0.5:
            opening += f"<|user|>{LOOK.replace('{said}', line)}{tiny.END}"
            line = self.again(line, self.line(state, rng), rng)
        return [f"{opening}<|assistant|>", f"{line}{tiny.END}"]

    def line(self, state: State, rng: np.random.Generator) -> str:
        assert isinstance(self.world, Praise)
        low, high = self.lengths
        return self.world.line(state, rng, self.share, int(rng.integers(low, high + 1)))

    def again(self, first: str, second: str, rng: np.random.Generator) -> str:
        """The second line, some of its words taken from the first."""
        seen = first.split()
        return " ".join(
            seen[i] if i < len(seen) and rng.random() < self.copied else word
            for i, word in enumerate(second.split())
        )
