"""What a piece of work costs: by the clock, and in seconds of the processor, which do not count those of others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    seconds: float
    cpu: float

    def __truediv__(self, by: float) -> Cost:
        return Cost(self.seconds / by, self.cpu / by)


def costs(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Cost]:
    """The least of some repeats of each way, taken in turns, so that a machine that gets busy slows all of them."""
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter(), time.process_time()
            way()
            found[name].append(Cost(time.perf_counter() - began[0], time.process_time() - began[1]))
    return {
        name: Cost(min(cost.seconds for cost in all_), min(cost.cpu for cost in all_))
        for name, all_ in found.items()
    }
