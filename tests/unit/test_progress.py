"""What is shown while a run goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ludus.train.progress import Lines, Silent, Terminal, TimeLeft, clock, progress
from ludus.types import End, Report, Rollout, Task


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def report(step: int) -> Report:
    return Report(step, {"success": 0.25, "reward": 0.5}, {"tokens_per_second": 1234.4})


def test_time_left_comes_from_recent_steps() -> None:
    left = TimeLeft(window=3)
    for seconds in (100, 1):
        left.saw("step", seconds)
        assert left.text(step=10) == "~"
    left.saw("step", 1)
    assert left.seconds(step=10) == pytest.approx(340)  # mean of 100, 1, 1
    left.saw("step", 1)
    assert left.text(step=10) == "0:10"  # the slow first one is out of the window


def test_time_left_has_evaluations_and_admits_what_it_cannot_know() -> None:
    left = TimeLeft()
    for _ in range(3):
        left.saw("step", 2)
    assert left.text(step=5, evaluation=2) == "> 0:10"
    left.saw("evaluation", 60)
    assert left.text(step=5, evaluation=2) == "2:10"
    assert left.text(step=5, evaluation=0, checkpoint=0) == "0:10"


def test_clock() -> None:
    assert [clock(s) for s in (0, 59.2, 125, 7325, 200000)] == [
        "0:00",
        "1:00",
        "2:05",
        "2:02:05",
        "2d 7h",
    ]


def test_plain_lines_where_there_is_no_terminal() -> None:
    out, now = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=False, width=40)
    with Lines(25, console, every=10, now=now) as shown:
        for step in range(1, 26):
            now.now += 2
            shown.step(report(step), checkpoint=1)
            shown.attempt(Rollout(Task("t"), (), (), 0.0, End.SOLVED))
    assert out.getvalue().splitlines() == [
        "step 10/25  success 0.25  reward 0.50  1,234 tokens/s  > 0:30 left",
        "step 20/25  success 0.25  reward 0.50  1,234 tokens/s  > 0:10 left",
        "step 25/25  success 0.25  reward 0.50  1,234 tokens/s  > 0:00 left",
    ]


def test_an_evaluation_is_not_counted_as_a_slow_step() -> None:
    out, now = io.StringIO(), Clock()
    with Lines(10, Console(file=out), every=4, now=now) as shown:
        for step in range(1, 5):
            now.now += 1
            if step == 4:
                now.now += 30
                shown.spent("evaluation", 30)
            shown.step(report(step), evaluation=1)
    assert "0:36 left" in out.getvalue()  # six steps of a second, and one more evaluation


def test_a_terminal_gets_a_bar_and_notes_above_it() -> None:
    out, now = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=True, width=120, force_interactive=False)
    with Terminal(8, 4, console, now) as shown:
        for step in range(5, 9):
            now.now += 1
            shown.attempt(Rollout(Task("t"), (), (), 0.0, End.SOLVED))
            shown.step(report(step))
        shown.note("checkpoint [bold]written[/bold]")
    text = out.getvalue()
    assert (
        "8/8" in text
        and "success 0.25" in text
        and "1,234 tokens/s" in text
        and "0:00 left" in text
    )
    assert "checkpoint [bold]written[/bold]" in text  # shown as it is, not as markup


def test_what_is_missing_is_a_dash() -> None:
    out = io.StringIO()
    Lines(1, Console(file=out, width=200), now=Clock()).step(Report(1, {}, {}))
    assert out.getvalue() == "step 1/1  success -  reward -  - tokens/s  ~ left\n"


def test_the_right_kind_is_chosen() -> None:
    assert isinstance(progress(3, console=Console(file=io.StringIO())), Lines)
    assert isinstance(
        progress(3, console=Console(file=io.StringIO(), force_terminal=True)), Terminal
    )
    with Silent() as shown:
        shown.step(report(1), evaluation=1)
        shown.spent("evaluation", 1.0)
        shown.note("nothing")
