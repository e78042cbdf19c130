"""Lines of praise that somebody compared: preferences with a gap in what they cover."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ludus.data.pairs import Pair
from ludus.data.render import Renderer
from ludus.data.written import written
from ludus.envs.small.praise import Praise
from ludus.envs.world import one_of
from ludus.types import Key


@dataclass(frozen=True)
class Compared:
    """`count` pairs of lines for training queries. Nobody compares lines of other `lengths` (fewest, most words).

    share  of words that are among the best third, as in `Praise.line`
    noise  of the labels, by Bradley and Terry: a line wins with probability sigmoid(difference of gold / noise)
    """

    world: Praise
    count: int = 256
    lengths: tuple[int, int] = (2, 5)
    share: float = 0.3
    noise: float = 0.1

    def __call__(self, renderer: Renderer, key: Key) -> list[Pair]:
        return list(self._drawn(renderer, key))

    def _drawn(self, renderer: Renderer, key: Key) -> Iterator[Pair]:
        rng, tasks, (low, high) = key.generator(), self.world.tasks("train"), self.lengths
        for _ in range(self.count):
            task = one_of(rng, tasks)
            state, both = self.world.state(task), []
            for length in rng.integers(low, high + 1, size=2).tolist():
                line = self.world.line(state, rng, self.share, length)
                both.append(written(renderer, task, line, reward=self.world.gold(state, line)))
            wins = 1 / (1 + math.exp((both[1].reward - both[0].reward) / self.noise))
            yield Pair(*(both if rng.random() < wins else both[::-1]))
