"""report.html: a run as one file that opens anywhere: curves, success before and after, and what the policy did.

    python -m ludus.train.report RUN        builds it again, also of a run that is not over

What the page says is computed by plain functions here and in report_curves, report_chats and report_advice; its looks
are in report.html.jinja, its drawings in charts. What a model wrote is hostile: it is escaped, its control signs are
made visible, and the page may run nothing.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from ludus.data import store
from ludus.evals.metrics import Interval, avg_at_n, by_task, paired, success
from ludus.train.charts import COLOURS, figure, intervals, window_of
from ludus.train.disk import write_atomic
from ludus.train.folder import RunFolder
from ludus.train.progress import clock
from ludus.train.report_advice import advice
from ludus.train.report_chats import choice, pick, readable, task
from ludus.train.report_curves import curves, other_curves
from ludus.types import End, Rollout

PAGE = Path(__file__).with_name("report.html.jinja")


def write(run: Path) -> Path:
    """Builds RUN/report.html from what the run folder holds."""
    folder = RunFolder(Path(run))
    before, after = held_out(folder.path)
    path = folder.path / "report.html"
    write_atomic(path, render(folder, before, after).encode())
    return path


def held_out(run: Path) -> tuple[list[Rollout], list[Rollout]]:
    """The evaluations before and after training: the first and the last that are stored, or nothing."""
    stored = [(t["phase"][0].as_py(), t["step"][0].as_py()) for t in store.tables(run)]

    def attempts(phase: Literal["before", "after"], step: int | None) -> list[Rollout]:
        groups = [] if step is None else store.read(run, steps=[step], phase=phase)
        return [rollout for group in groups for rollout in group.rollouts]

    first = min((step for phase, step in stored if phase == "before"), default=None)
    last = max((step for phase, step in stored if phase == "after"), default=None)
    return attempts("before", first), attempts("after", last)


def render(run: RunFolder, before: Sequence[Rollout], after: Sequence[Rollout]) -> str:
    """The page, from a run folder and the held-out attempts before and after training."""
    about, summary = run.about, run.summary or {}
    metrics, timings = run.lines("metrics.jsonl"), run.lines("timings.jsonl")
    ends = [success_of(summary.get("before"), before), success_of(summary.get("after"), after)]
    gain = difference(before, after)
    shown = pick(before, after)
    # as a person would type it; the page says nothing of the machine that it was made on
    where = run.path.name if run.path.is_absolute() else str(run.path)
    return _template().render(
        title=title_of(about),
        facts=facts(about, summary, metrics),
        hero=[_hero("before", ends[0]), _hero("after", ends[1])],
        axis=_axis(ends),
        verdict=verdict(ends, gain),
        measures=_measures(summary),
        curves=curves(metrics),
        more=other_curves(metrics),
        averaged=window_of([(0, 0)] * len(metrics)),
        ends=end_counts(before, after),
        spans=spans(timings, summary.get("seconds")),
        advice=advice(where, about, summary, metrics, after, gain),
        tasks=[task(*pair) for _, pair in shown],
        chosen=choice(shown, before, after),
        versions="   ".join(f"{name} {number}" for name, number in about["versions"].items()),
        recipe=json.dumps(about["recipe"], indent=2),  # ASCII: nothing in it to make readable
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(PAGE.read_text())


def _name(piece: Any) -> str:
    """What a described piece of a recipe is called."""
    if isinstance(piece, Mapping):
        return str(piece.get("name") or piece.get("is") or "")
    return str(piece) if isinstance(piece, str | int | float) else ""


def title_of(about: Mapping[str, Any]) -> str:
    return readable(about["name"] or _name(about["recipe"]) or "A run")


def facts(
    about: Mapping[str, Any], summary: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """The header's line: name and value, those that are known."""
    recipe = about["recipe"]
    steps = max((row["step"] for row in metrics), default=0)
    of = recipe.get("steps")
    known = [
        ("model", _name(recipe.get("model"))),
        ("environment", _name(recipe.get("env"))),
        ("credit", _name(recipe.get("credit"))),
        ("loss", _name(recipe.get("loss"))),
        ("seed", str(about["seed"])),
        ("steps", f"{steps:,}" if of in (None, steps) else f"{steps:,} of {of:,}"),
        ("tokens", figure(summary["tokens"]) if "tokens" in summary else ""),
        ("time", clock(summary["seconds"]) if "seconds" in summary else ""),
    ]
    return [(name, readable(value)) for name, value in known if value]


# ------------------------------------------------------------------------------------------ before and after


def success_of(summary: Mapping[str, Any] | None, rollouts: Sequence[Rollout]) -> Interval | None:
    """From summary.json, else from the attempts themselves; None where there is neither."""
    if summary and "success" in summary:
        return Interval(**summary["success"])
    return success(rollouts) if by_task(rollouts) else None


def difference(before: Sequence[Rollout], after: Sequence[Rollout]) -> Interval | None:
    """The gain in success on the tasks that both attempted, paired by task."""
    scores = [
        {task: float(avg_at_n([s])[0]) for task, s in by_task(r).items()} for r in (before, after)
    ]
    return paired(*scores) if set(scores[0]) & set(scores[1]) else None


def verdict(ends: Sequence[Interval | None], gain: Interval | None) -> str:
    """The result in one sentence, no stronger than its interval."""
    if gain is None:
        missing = "after" if ends[1] is None else "before"
        if None in ends:
            return f"There is no evaluation {missing} training to compare with."
        return "The attempts are not stored, so that the difference cannot be paired by task."
    if gain.low == gain.high == 0:
        return f"No difference: each of {gain.n} tasks scored the same before and after."
    size = (
        f"{100 * gain.mean:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}], "
        f"paired over {gain.n} tasks"
    )
    if gain.low > 0:
        return f"Better after training: {size}."
    if gain.high < 0:
        return f"Worse after training: {size}."
    return f"No difference shown: {size}, and zero is inside."


def _hero(name: str, interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {"name": name, "interval": None}
    return {
        "name": name,
        "interval": interval,
        "big": f"{100 * interval.mean:.1f}",
        "range": f"{100 * interval.low:.1f} to {100 * interval.high:.1f}, {interval.n} tasks",
    }


def _axis(ends: Sequence[Interval | None]) -> Markup:
    rows = [
        (name, end.mean, end.low, end.high, f"var(--{name})")
        for name, end in zip(("before", "after"), ends, strict=True)
        if end is not None
    ]
    return intervals(rows) if rows else Markup("")


def _measures(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    before, after = summary.get("before") or {}, summary.get("after") or {}
    names = list(dict.fromkeys([*before, *after]))
    sides = [
        [str(Interval(**side[name])) if name in side else "–" for name in names]
        for side in (before, after)
    ]
    return list(zip(names, *sides, strict=True)) if len(names) > 1 else []


# ------------------------------------------------------------------------------------------ ends and time


def end_counts(before: Sequence[Rollout], after: Sequence[Rollout]) -> list[dict[str, Any]]:
    """Each end that occurred: how often before and after, and bars in share of all attempts."""
    counts = [Counter(rollout.end for rollout in side) for side in (before, after)]
    return [
        {
            "name": str(end),
            "before": f"{counts[0][end]:,}",
            "after": f"{counts[1][end]:,}",
            "before_width": round(100 * counts[0][end] / max(len(before), 1), 1),
            "after_width": round(100 * counts[1][end] / max(len(after), 1), 1),
        }
        for end in End
        if counts[0][end] or counts[1][end]
    ]


def spans(timings: Sequence[Mapping[str, Any]], whole: float | None) -> list[dict[str, Any]]:
    """Seconds of each stage over the run, and what is left of the `whole`; speeds are not seconds."""
    totals: dict[str, float] = {}
    for row in timings:
        for name, seconds in row.items():
            if name not in ("step", "seconds") and not name.endswith("per_second"):
                totals[name] = totals.get(name, 0.0) + (seconds or 0.0)
    stepped = sum(row.get("seconds") or 0.0 for row in timings)
    named = sum(totals.values())
    if stepped > named:
        totals["rest of a step"] = stepped - named
    if whole is not None and whole > sum(totals.values()):
        totals["evaluations, checkpoints, start"] = whole - sum(totals.values())
    everything = sum(totals.values())
    return [
        {
            "name": readable(name),
            "time": clock(seconds),
            "share": round(seconds / everything, 4),
            "percent": f"{seconds / everything:.0%}",
            "colour": i % COLOURS + 1,
        }
        for i, (name, seconds) in enumerate(totals.items())
        if seconds > 0
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ludus.train.report", description=__doc__)
    parser.add_argument(
        "run", type=Path, help="the folder of a run, as `ludus run ... --out DIR` makes it"
    )
    print(write(parser.parse_args().run))


if __name__ == "__main__":
    main()
