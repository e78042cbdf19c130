"""A base for a world whose steps are dear: from few different games, each played once and then seen many times."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from ludus.envs.world import mixed, play
from ludus.models.world_base import WorldBase, pieces
from ludus.types import Key


@dataclass(frozen=True)
class FewGames(WorldBase):
    """As WorldBase; `different` games for each share that occurs, the tasks in turn."""

    different: int = 256

    def texts(self) -> Iterator[list[list[str]]]:
        shares = [s.share for s in self.first for _ in range(s.steps)] + [self.share] * self.steps
        played: dict[float, list[list[str]]] = {}
        for step, share in enumerate(shares):
            if share not in played:
                played[share] = [self._played(share, number) for number in range(self.different)]
            drawn = (Key(self.seed) / "few games" / step).generator()
            chosen = drawn.integers(self.different, size=self.games)
            yield [played[share][int(i)] for i in chosen]

    def _played(self, share: float, number: int) -> list[str]:
        tasks, player = self.world.tasks("train"), mixed(self.world, share)
        rng = (Key(self.seed) / "few games" / f"share {share}" / number).generator()
        task, seed = tasks[number % len(tasks)], int(rng.integers(2**31))
        return pieces(asyncio.run(play(self.world, task, seed, player, rng, self.turns)))
