"""Line and area charts as SVG text: no script, no library in the browser, colours from the page's variables.

They are drawn for a box of 460 x 220 and scale with it. Moving over a step shows its numbers (an SVG <title>).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 16, 26
MOST = 300  # points drawn of a series
POINTED = 120  # steps that can be pointed at
COLOURS = 8  # --c1 .. --c8 on the page


@dataclass(frozen=True)
class Series:
    """One line. `band` gives an interval to each point; `dots` draws points that are few (evaluations)."""

    name: str
    points: Points
    colour: int = 1
    band: Points = ()
    dots: bool = False
    steps: bool = False  # constant between changes, such as a limit
    dashed: bool = False


@dataclass(frozen=True)
class Frame:
    """Data to box: x and y ranges as drawn."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (
            HEIGHT - TOP - BOTTOM
        )

    def path(self, points: Points) -> str:
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (self.at(*point) for point in points))


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) that span [low, high].

    >>> ticks(0, 0.83)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if not high > low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    digits = max(12, 2 - math.floor(math.log10(rough)))
    return [round(i * size, digits) for i in range(first, last + 1)]


def figure(value: float) -> str:
    """A number as a person writes it: 0.123, 12.3, 1,230, 1.2M."""
    size = abs(value)
    if not math.isfinite(value):
        return "-"
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if size >= 1e-3 or not size else f"{value:.1e}"


def smooth(points: Points, window: int) -> list[tuple[float, float]]:
    """The mean of each point and the `window - 1` before it, so that no point knows its future."""
    total, out = 0.0, []
    for i, (x, y) in enumerate(points):
        total += y - (points[i - window][1] if i >= window else 0.0)
        out.append((x, total / min(i + 1, window)))
    return out


def thin(points: Points, most: int = MOST) -> list[tuple[float, float]]:
    """At most about `most` points, keeping the lowest and the highest of each stretch, so that spikes stay."""
    if len(points) <= most:
        return list(points)
    size, out = math.ceil(2 * len(points) / most), []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        out += sorted(ends)
    return out


def window_of(points: Points) -> int:
    """How many steps the bold line of a noisy curve is averaged over: 1 (not at all) for short ones."""
    return 1 if len(points) < 20 else max(5, len(points) // 15)


def line_chart(
    series: Sequence[Series], *, share: bool = False, marks: Sequence[tuple[float, str]] = ()
) -> Markup:
    """Lines over steps. share: the axis is 0 to 100 %. marks: (step, label), a stage that begins there."""
    ys = [y for s in series for _, y in (*s.points, *((0, end) for pair in s.band for end in pair))]
    xs = [x for s in series for x, _ in s.points]
    levels = [0.0, 0.25, 0.5, 0.75, 1.0] if share else ticks(min(ys), max(ys))
    frame = Frame(_span(xs), (levels[0], levels[-1]))
    drawn = [_axes(frame, levels, share), _marks(frame, marks)]
    for s in series:
        colour = f"var(--c{(s.colour - 1) % COLOURS + 1})"
        if s.band:
            upper = [(x, high) for (x, _), (_, high) in zip(s.points, s.band, strict=True)]
            lower = [(x, low) for (x, _), (low, _) in zip(s.points, s.band, strict=True)]
            around = frame.path([*upper, *lower[::-1]])
            drawn.append(f'<path d="{around}Z" fill="{colour}" opacity=".14"/>')
        window = 1 if s.dots or s.steps else window_of(s.points)
        if window > 1:
            raw = frame.path(thin(s.points))
            drawn.append(f'<path class="raw" d="{raw}" stroke="{colour}"/>')
        bold = smooth(s.points, window)
        line = _stairs(bold) if s.steps else thin(bold)
        dash = ' stroke-dasharray="3 3"' if s.dashed or s.dots else ""
        drawn.append(f'<path class="bold" d="{frame.path(line)}" stroke="{colour}"{dash}/>')
        if s.dots:
            for point in s.points:
                x, y = frame.at(*point)
                drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}"/>')
    drawn.append(_pointers(frame, {s.name: s.points for s in series}, share))
    return _svg(drawn)


def area_chart(counts: Mapping[str, Points], *, marks: Sequence[tuple[float, str]] = ()) -> Markup:
    """Shares of a whole over steps, one upon the other; the first name lies at the bottom, in colour 1.

    Every name has the same steps. Averaged like the bold line of a line chart.
    """
    steps = [x for x, _ in next(iter(counts.values()))]
    totals = [sum(points[i][1] for points in counts.values()) or 1.0 for i in range(len(steps))]
    shares = {
        name: [(x, y / total) for (x, y), total in zip(points, totals, strict=True)]
        for name, points in counts.items()
    }
    frame = Frame(_span(steps), (0.0, 1.0))
    drawn = [_axes(frame, [0.0, 0.25, 0.5, 0.75, 1.0], True)]
    below = [(x, 0.0) for x in steps]
    for i, points in enumerate(shares.values()):
        averaged = smooth(points, window_of(points))
        above = [(x, y + b) for (x, y), (_, b) in zip(averaged, below, strict=True)]
        every = math.ceil(len(steps) / MOST)
        edge = [*above[::every], above[-1]], [*below[::every], below[-1]]
        around = frame.path([*edge[0], *edge[1][::-1]])
        drawn.append(f'<path class="area" d="{around}Z" fill="var(--c{i % COLOURS + 1})"/>')
        below = above
    drawn += [_marks(frame, marks), _pointers(frame, shares, True)]
    return _svg(drawn)


def intervals(rows: Sequence[tuple[str, float, float, float, str]]) -> Markup:
    """Means with intervals on one axis from 0 to 100 %: (name, mean, low, high, colour)."""
    left, width, height = 64, 640, 34 + 30 * len(rows)

    def across(value: float) -> float:
        return left + value * (width - left - 20)

    drawn = []
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = across(level)
        drawn.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{height - 24}"/>'
            f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{level:.0%}</text>'
        )
    for i, (name, mean, low, high, colour) in enumerate(rows):
        y = 24 + 30 * i
        drawn.append(
            f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
            f'<line x1="{across(low):.1f}" x2="{across(high):.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
            f'stroke-width="9" stroke-linecap="round" opacity=".28"/>'
            f'<circle cx="{across(mean):.1f}" cy="{y}" r="6.5" fill="{colour}"/>'
        )
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">{"".join(drawn)}</svg>'
    )


# ------------------------------------------------------------------------------------------ pieces


def _svg(drawn: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(drawn)}</svg>'
    )


def _span(xs: Sequence[float]) -> tuple[float, float]:
    low, high = min(xs), max(xs)
    return (low, high) if high > low else (low - 1, high + 1)


def _axes(frame: Frame, levels: Sequence[float], share: bool) -> str:
    drawn = []
    for level in levels:
        _, y = frame.at(frame.x[0], level)
        text = f"{level:.0%}" if share else figure(level)
        drawn.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>'
        )
    whole = [t for t in ticks(*frame.x, 5) if frame.x[0] <= t <= frame.x[1] and t == int(t)]
    for step in whole:
        x, _ = frame.at(step, frame.y[0])
        anchor = "end" if x > WIDTH - 24 else "middle"
        drawn.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{int(step):,}</text>'
        )
    return "".join(drawn)


def _marks(frame: Frame, marks: Sequence[tuple[float, str]]) -> str:
    drawn = []
    for step, label in marks:
        x, _ = frame.at(step, frame.y[0])
        drawn.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text class="mark" x="{x + 4:.1f}" y="{TOP - 5}">{escape(label)}</text>'
        )
    return "".join(drawn)


def _stairs(points: Points) -> list[tuple[float, float]]:
    """Corners of a line that is level until it changes."""
    out = list(points[:1])
    for (_, before), (x, y) in itertools.pairwise(points):
        if y != before:
            out += [(x, before), (x, y)]
    return [*out, points[-1]]


def _pointers(frame: Frame, lines: Mapping[str, Points], share: bool) -> str:
    """A strip for each step (of at most MOST) that shows a rule and the step's numbers under the pointer."""
    at: dict[float, list[str]] = {}
    for name, points in lines.items():
        for x, y in points:
            at.setdefault(x, []).append(f"{name}: {y:.1%}" if share else f"{name}: {figure(y)}")
    steps = sorted(at)[:: math.ceil(len(at) / POINTED)]
    width = (WIDTH - LEFT - RIGHT) / max(len(steps) - 1, 1)
    drawn = []
    for step in steps:
        x, _ = frame.at(step, frame.y[0])
        said = escape("\n".join([f"step {step:,.0f}", *at[step]]))
        drawn.append(
            f'<g class="at"><title>{said}</title><rect x="{x - width / 2:.1f}" y="{TOP}" width="{width:.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}"/><line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></g>'
        )
    return "".join(drawn)
