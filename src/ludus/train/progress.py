"""What one watches during a run: success, reward, tokens per second, and an honest estimate of the time left.

    with progress(total=recipe.steps, done=state.step) as shown:
        for state, report in train(..., done=shown.attempt):
            shown.step(report, evaluation=evaluations_left, checkpoint=checkpoints_left)

On a terminal it is a bar; elsewhere (logs, CI) a plain line every few steps. `Silent` shows nothing.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from ludus.types import Report, Rollout


class TimeLeft:
    """An estimate from the recent past: what remains of each kind of work, at the mean duration of its last ones.

    Steps grow longer when episodes do, so only the last `window` of them count. Before `least` steps nothing is said.
    """

    def __init__(self, window: int = 20, least: int = 3) -> None:
        self.window, self.least = window, least
        self.seen: dict[str, deque[float]] = {}

    def saw(self, kind: str, seconds: float) -> None:
        """One piece of work took `seconds`: "step", "evaluation", "checkpoint" ..."""
        self.seen.setdefault(kind, deque(maxlen=self.window)).append(seconds)

    def seconds(self, **left: int) -> float | None:
        """For what is left of each kind, among those that were timed; None before enough steps were."""
        if len(self.seen.get("step", ())) < self.least:
            return None
        timed = {kind: count for kind, count in left.items() if self.seen.get(kind)}
        return sum(
            count * sum(self.seen[kind]) / len(self.seen[kind]) for kind, count in timed.items()
        )

    def text(self, **left: int) -> str:
        """ "~" while unknown; "> 2:05" where work is left of a kind that was never timed; else "2:05"."""
        seconds = self.seconds(**left)
        if seconds is None:
            return "~"
        untimed = any(count and not self.seen.get(kind) for kind, count in left.items())
        return f"> {clock(seconds)}" if untimed else clock(seconds)


def clock(seconds: float) -> str:
    """125 -> '2:05', 7325 -> '2:02:05', 200000 -> '2d 7h'."""
    whole = math.ceil(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d {hours}h"
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class Progress(Protocol):
    """Shown while a run goes on. Used as a context, so that the terminal is left tidy after an error too."""

    def attempt(self, rollout: Rollout) -> None:
        """A rollout of the step under way has ended."""
        ...

    def step(self, report: Report, **left: int) -> None:
        """A step is done; `left` says what is still to come by kind, such as step=12, evaluation=2, checkpoint=4.

        Without `step` the rest of the total is to come; a run that ends by a budget gives its own estimate.
        """
        ...

    def spent(self, kind: str, seconds: float) -> None:
        """Time that went into something else than a step: "evaluation", "checkpoint" ..."""
        ...

    def note(self, text: str) -> None:
        """A line for the reader, above the bar."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class Silent:
    """Shows nothing."""

    def attempt(self, rollout: Rollout) -> None: ...
    def step(self, report: Report, **left: int) -> None: ...
    def spent(self, kind: str, seconds: float) -> None: ...
    def note(self, text: str) -> None: ...
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...


class _Timed:
    """What the two visible kinds share: how long steps take, and what a step says."""

    def __init__(self, total: int, now: Callable[[], float]) -> None:
        self.total, self.now = total, now
        self.left = TimeLeft()
        self.began = now()

    def spent(self, kind: str, seconds: float) -> None:
        self.left.saw(kind, seconds)
        self.began += seconds  # or the next step would count it again

    def _figures(self, report: Report, left: dict[str, int]) -> str:
        now = self.now()
        self.left.saw("step", now - self.began)
        self.began = now
        success = _figure(report.metrics.get("success", math.nan), ".2f")
        reward = _figure(report.metrics.get("reward", math.nan), ".2f")
        speed = _figure(report.timings.get("tokens_per_second", math.nan), ",.0f")
        self.total = report.step + left.setdefault("step", self.total - report.step)
        remains = self.left.text(**left)
        return f"success {success}  reward {reward}  {speed} tokens/s  {remains} left"


class Terminal(_Timed):
    """A bar that stays in place."""

    def __init__(
        self, total: int, done: int, console: Console, now: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__(total, now)
        self.attempts = 0
        self.bar = Bar(
            MofNCompleteColumn(
                table_column=Column(min_width=len(f"{total}/{total}"), no_wrap=True)
            ),
            BarColumn(bar_width=None),
            TextColumn("{task.description}", markup=False),
            console=console,
            expand=True,
        )
        self.task = self.bar.add_task("~ left", total=total, completed=done)
        self.last = "~ left"

    def attempt(self, rollout: Rollout) -> None:
        self.attempts += 1
        self.bar.update(self.task, description=f"{self.last}  +{self.attempts}")

    def step(self, report: Report, **left: int) -> None:
        self.attempts, self.last = 0, self._figures(report, left)
        self.bar.update(self.task, completed=report.step, total=self.total, description=self.last)

    def note(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()


class Lines(_Timed):
    """A plain line every `every` steps, and at the last, for a file or a pipe."""

    def __init__(
        self,
        total: int,
        console: Console,
        every: int = 10,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(total, now)
        self.console, self.every = console, every

    def attempt(self, rollout: Rollout) -> None: ...

    def step(self, report: Report, **left: int) -> None:
        figures = self._figures(report, left)
        if report.step % self.every == 0 or report.step == self.total:
            self.note(f"step {report.step}/{self.total}  {figures}")

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...


def progress(
    total: int, *, done: int = 0, every: int = 10, console: Console | None = None
) -> Progress:
    """A bar on a terminal, plain lines elsewhere. `done` steps came before, where a run is resumed."""
    console = console or Console(stderr=True)
    return Terminal(total, done, console) if console.is_terminal else Lines(total, console, every)


def _figure(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
