"""The curves of a report: which metrics share a chart, and what is marked in it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ludus.train.charts import COLOURS, Series, area_chart, figure, line_chart, smooth, window_of
from ludus.train.report_chats import readable
from ludus.types import End

Rows = Sequence[Mapping[str, Any]]  # of metrics.jsonl


@dataclass(frozen=True)
class Curve:
    """A chart of named metrics; `under` takes every metric below a prefix instead ("success/" by difficulty)."""

    title: str
    metrics: Mapping[str, str] = field(default_factory=dict)  # metric -> its name in the legend
    under: str = ""
    share: bool = False


CURVES = (
    Curve("Success", {"success": "training", "held-out/success": "held out"}, share=True),
    Curve("Reward", {"reward": "training", "held-out/reward": "held out"}),
    Curve("Success by difficulty", under="success/", share=True),
    Curve("Turns", {"turns": "mean", "turns/longest": "longest", "limit/turns": "allowed"}),
    Curve("Tokens of an answer", {"tokens/answer": "mean"}),
    Curve("Entropy of a token", {"entropy": "nats"}),
    Curve("KL", {"kl_ref": "from the reference", "kl_old": "from the sampler"}),
    Curve("Norm of the gradient", {"grad_norm": "before clipping"}),
    Curve("Mixed groups", {"groups/mixed": "share with better and worse answers"}, share=True),
)
LIMIT = "limit/turns"
LEVEL = (LIMIT, "turns/longest")  # drawn as they are: an average of limits is no limit
EVALUATED = "held-out/"  # measured now and then, with <name>/low and <name>/high


def points(metrics: Rows, name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in metrics if row.get(name) is not None]


def stages(metrics: Rows) -> list[tuple[float, str]]:
    """Where the limit of turns changed."""
    limit = points(metrics, LIMIT)
    return [
        (step, f"{figure(old)}→{figure(new)} turns")
        for (_, old), (step, new) in itertools.pairwise(limit)
        if new != old
    ]


def curves(metrics: Rows) -> list[dict[str, Any]]:
    """The charts that the known metrics make, and how training attempts ended."""
    marks = stages(metrics)
    drawn = [_curve(curve, metrics, marks) for curve in CURVES]
    return [curve for curve in [*drawn, _ended(metrics, marks)] if curve]


def other_curves(metrics: Rows) -> list[dict[str, Any]]:
    """A chart for each metric that no chart above shows."""
    names = dict.fromkeys(name for row in metrics for name in row)
    shown = {name for curve in CURVES for name in _members(curve, metrics)} | {"step"}
    left = [n for n in names if n not in shown and not n.startswith(("end/", EVALUATED))]
    drawn = [_curve(Curve(name, {name: "each step"}), metrics, stages(metrics)) for name in left]
    return [curve for curve in drawn if curve]


def _members(curve: Curve, metrics: Rows) -> dict[str, str]:
    if not curve.under:
        return dict(curve.metrics)
    names = {name for row in metrics for name in row if name.startswith(curve.under)}
    ordered = sorted(
        names, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)]
    )
    return {name: name.removeprefix(curve.under) for name in ordered[:COLOURS]}


def _curve(
    curve: Curve, metrics: Rows, marks: Sequence[tuple[float, str]]
) -> dict[str, Any] | None:
    series = []
    for name, legend in _members(curve, metrics).items():
        if not (line := points(metrics, name)):
            continue
        bounds = [[y for _, y in points(metrics, f"{name}/{end}")] for end in ("low", "high")]
        whole = all(len(bound) == len(line) for bound in bounds)
        few = name.startswith(EVALUATED)
        limit = name == LIMIT
        series.append(
            Series(
                readable(legend),
                line,
                colour=6 if limit else len(series) + 1,
                band=list(zip(*bounds, strict=True)) if whole else (),
                dots=few,
                steps=name in LEVEL,
                dashed=limit,
            )
        )
    if not series:
        return None
    first = series[0]
    last = (first.points if first.dots else smooth(first.points, window_of(first.points)))[-1][1]
    return {
        "title": readable(curve.title),
        "last": f"{last:.1%}" if curve.share else figure(last),
        "legend": [{"name": s.name, "colour": s.colour} for s in series],
        "svg": line_chart(series, share=curve.share, marks=marks),
    }


def _ended(metrics: Rows, marks: Sequence[tuple[float, str]]) -> dict[str, Any] | None:
    counts = {
        str(end): [
            (row["step"], row.get(f"end/{end}") or 0.0) for row in metrics if f"end/{end}" in row
        ]
        for end in End
    }
    seen = {name: line for name, line in counts.items() if any(y for _, y in line)}
    if not seen or len({len(line) for line in seen.values()}) > 1:
        return None
    return {
        "title": "How training attempts ended",
        "last": "",
        "legend": [{"name": name, "colour": i % COLOURS + 1} for i, name in enumerate(seen)],
        "svg": area_chart(seen, marks=marks),
    }
