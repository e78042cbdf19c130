"""A system that is no training run: a benchmark, a search, an edit of weights. It is measured, and tells numbers.

    @dataclass(frozen=True)
    class Shots:
        model: str | Made = WorldBase(...)
        shots: tuple[int, ...] = (4, 32)

        def measure(self, seed, folder, track):
            for function in track(functions, "functions"): ...
            return {"accuracy/4 shots": 0.2, "accuracy/32 shots": 0.5}

    recipe = Shots()

`ludus run` and `ludus replicate` take it as they take a Recipe; a claim may measure whatever `measure` tells.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from ludus.train.disk import write_atomic
from ludus.train.folder import RunFolder
from ludus.train.recipe import Made, describe

T = TypeVar("T")


class Track(Protocol):
    """Shows how far one is: goes through `items` as they are."""

    def __call__(self, items: Sequence[T], text: str) -> Iterable[T]: ...


def silent(items: Sequence[T], text: str) -> Iterable[T]:
    return items


def shown(items: Sequence[T], text: str) -> Iterable[T]:
    """With a progress bar."""
    from rich.progress import track

    return track(items, text, total=len(items))


@runtime_checkable
class Study(Protocol):
    """A frozen dataclass: its fields are settings, `model` the one that --model replaces.

    measure  (seed, folder, track) -> name -> number; what should be kept besides is written into `folder`
    """

    @property
    def model(self) -> str | Made: ...
    def measure(self, seed: int, folder: Path, track: Track) -> Mapping[str, float]: ...


def run_study(
    study: Study,
    out: Path,
    *,
    name: str = "",
    seed: int = 0,
    resume: bool = False,
    track: Track = silent,
) -> dict[str, float]:
    """Measure into the folder `out`: recipe.json says what was measured, summary.json what came out.

    A study that was stopped begins anew in its folder; one that is over is not measured again.
    """
    folder = RunFolder.create(out, describe(study), seed, name=name, resume=resume)
    if folder.summary is not None:
        return dict(folder.summary["measures"])
    began = time.perf_counter()
    measures = {name: float(value) for name, value in study.measure(seed, out, track).items()}
    told: dict[str, Any] = {"measures": measures, "seconds": time.perf_counter() - began}
    write_atomic(out / "summary.json", (json.dumps(told, indent=1) + "\n").encode())
    return measures
