"""One job, two sides, one run: a step of the one, a step of the other, and so on."""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ludus.benches import show
from ludus.benches.job import Job
from ludus.benches.show import MIB, Spread, Target, console
from ludus.benches.side import Ready, Told, side
from ludus.types import Explained

SIDES = ("ludus", "trl")


class NoPeer(Explained, ImportError):
    """The package that a bench compares with is not installed."""


@dataclass(frozen=True)
class Measured:
    """One side: before its first step, each timed step, its peak of memory in bytes."""

    ready: Ready
    steps: tuple[Told, ...]
    peak: int

    def mean(self, figure: str) -> float:
        return float(np.mean([getattr(step, figure) for step in self.steps]))


def duel(job: Job) -> dict[str, Measured]:
    """Both sides do the job: the first step of each is not timed (caches fill, memory is taken), then in turns."""
    if importlib.util.find_spec("trl") is None:
        raise NoPeer("this bench compares with TRL, which is not installed; type: pip install trl")
    if job.rollouts % job.rows:
        raise ValueError(
            f"{job.rollouts} rollouts cannot be cut into passes of {job.rows}; give rows= a divisor"
        )
    with ExitStack() as stack:
        sides = {name: stack.enter_context(side(name, job)) for name in SIDES}
        ready = {name: one.ready() for name, one in sides.items()}
        rounds = [{name: one.step() for name, one in sides.items()} for _ in range(1 + job.steps)]
        peaks = {name: one.peak() for name, one in sides.items()}
    measured = {
        name: Measured(ready[name], tuple(r[name] for r in rounds[1:]), peaks[name])
        for name in SIDES
    }
    refuse_unequal(measured)
    return measured


def refuse_unequal(measured: dict[str, Measured]) -> None:
    """A ratio means something only where both did the same."""
    for what in ("rollouts", "sampled", "read"):
        counts = {name: {getattr(s, what) for s in one.steps} for name, one in measured.items()}
        if counts["ludus"] != counts["trl"] or len(counts["ludus"]) != 1:
            raise AssertionError(f"the sides did unequal work, {what} a step: {counts}")


def ratios(measured: dict[str, Measured]) -> dict[str, Spread]:
    """TRL's figure over ours, step by step as they took turns; memory once."""
    ours, theirs = measured["ludus"], measured["trl"]
    pairs = list(zip(ours.steps, theirs.steps, strict=True))
    learning = [(t.seconds - t.sampling) / (o.seconds - o.sampling) for o, t in pairs]
    memory = theirs.peak / ours.peak
    return {
        "speed": Spread.of([t.seconds / o.seconds for o, t in pairs]),
        "speed by processor": Spread.of([t.cpu / o.cpu for o, t in pairs]),
        "sampling": Spread.of([t.sampling / o.sampling for o, t in pairs]),
        "learning": Spread.of(learning),
        "memory": Spread(memory, memory, memory),
    }


def report(bench: str, title: str, job: Job, wanted: float, json: Path | None) -> None:
    """Run the duel, print settings, table and targets, write the JSON."""
    settings = show.machine(job.threads)
    console.print(f"[bold]{title}[/]\n{show.told(settings)}\n{show.told(asdict(job))}")
    measured = duel(job)
    step = measured["ludus"].steps[0]
    console.print(
        f"{measured['ludus'].ready.parameters:,} parameters, float32; each step {step.rollouts} rollouts, "
        f"{step.sampled:,} tokens sampled, {step.read:,} tokens of context; both sides alike\n"
    )
    rows = []
    for name, one in measured.items():
        seconds, sampling = one.mean("seconds"), one.mean("sampling")
        speed = [step.rollouts / s.seconds for s in one.steps]
        figures = (step.sampled / seconds, seconds, sampling, seconds - sampling, one.mean("cpu"))
        bytes_ = (one.peak, one.peak - one.ready.memory)
        rows.append(
            [
                name,
                str(Spread.of(speed)),
                *(f"{f:.2f}" for f in figures),
                *(f"{b / MIB:.0f}" for b in bytes_),
            ]
        )
    columns = (
        *("side", "rollouts/s", "tokens/s", "s a step", "sampling", "learning", "processor s"),
        *("peak MiB", "of that, work"),
    )
    show.table("", columns, rows)
    compared = ratios(measured)
    console.print("\nTRL over Ludus, mean (least to greatest of the pairs of steps)")
    for name, spread in compared.items():
        console.print(f"  {name:>10}  {spread}")
    targets = [
        Target(
            f"at least {wanted:g} times the rollouts per second",
            compared["speed"].mean,
            compared["speed"].mean >= wanted,
        ),
        Target(
            "no more memory (TRL's peak over ours, at least 1)",
            compared["memory"].mean,
            compared["memory"].mean >= 1,
        ),
    ]
    console.print("\n" + "\n".join(map(str, targets)))
    figures_: dict[str, Any] = {
        "bench": bench,
        "machine": settings,
        "load_after": show.machine(job.threads)["load"],
        "job": asdict(job),
        "sides": {name: asdict(one) for name, one in measured.items()},
        "trl_over_ludus": {name: asdict(spread) for name, spread in compared.items()},
        "targets": [asdict(target) for target in targets],
    }
    show.write(json, figures_)
