"""How figures are printed and written: settings on top, one small table, the targets, and the same as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
MIB = 1 << 20


def machine(threads: int) -> dict[str, Any]:
    """What a figure depends on besides the code. `load` above `cores` means that others were at work."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers", "trl")},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Spread:
    """Repeats of one figure: their mean, the least and the greatest."""

    mean: float
    least: float
    greatest: float

    @staticmethod
    def of(figures: Sequence[float]) -> Spread:
        return Spread(float(np.mean(figures)), float(min(figures)), float(max(figures)))

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.least:.2f} to {self.greatest:.2f})"


@dataclass(frozen=True)
class Target:
    """What a bench promises, and whether this run kept it."""

    text: str
    figure: float
    kept: bool

    def __str__(self) -> str:
        return f"{'kept  ' if self.kept else '[bold red]missed[/]'}  {self.text}: {self.figure:.3g}"


def told(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        bars = not column and place == len(columns) - 1
        grid.add_column(column, justify="right" if place and not bars else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def bar(figure: float, most: float, width: int = 24) -> str:
    """A curve in a column: `most` fills the width."""
    return "█" * max(1, round(figure / most * width))


def write(file: Path | None, figures: Mapping[str, Any]) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=1) + "\n")
        console.print(f"written to {file}")
