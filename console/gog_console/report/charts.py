"""Line charts as SVG. The page shows them without scripts; a script only adds tooltips.

All charts have the same size, so that small multiples are aligned. Tooltip values come from `readings`, which contains
exactly the values that were drawn.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gog_console import formatting
from gog_console.report.markup import Child, Markup, tag

WIDTH, HEIGHT = 400, 206
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 10, 38
"""Margins of the plot, in SVG units."""
SMOOTH_FROM = 24
"""Number of steps from which a moving mean is drawn."""

Values = Sequence[float | None]
Band = Sequence[tuple[float, float] | None]


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    """Label; empty for a single curve."""
    values: Values
    """Value per step; None where it is missing."""
    style: str = "c1"
    """CSS class of its colour."""
    band: Band = ()
    """Interval per step that is shaded around the curve."""


@dataclass(frozen=True)
class Chart:
    """Curves over steps."""

    id: str
    """Identifier within the page."""
    title: str
    """Heading."""
    steps: Sequence[int]
    """Positions on the x axis."""
    lines: Sequence[Line]
    """Curves, each with one value per step."""
    note: str = ""
    """Caption below the chart."""
    share: bool = True
    """Whether values are shares, shown in percent."""
    holds: tuple[float, ...] = (0.0,)
    """Values that the y axis includes at least."""
    limits: tuple[float, float] | None = None
    """Ends of the y axis; None to fit the data."""
    smooth: bool = True
    """Whether a moving mean is drawn."""
    group: str = "grpo"
    """Charts of one group share the pointer's position."""
    axis: str = "step"
    """Label of the x axis."""
    stacked: bool = False
    """Whether curves are stacked as areas, the first one at the bottom; then a missing value counts as 0."""
    frame: _Frame = field(init=False)
    """Mapping from data to the plot; derived."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", _frame(self))

    @property
    def heights(self) -> list[Values]:
        """Where each curve is drawn: its values, or their sum with those of the curves below it."""
        if not self.stacked:
            return [line.values for line in self.lines]
        rows = ([value or 0.0 for value in line.values] for line in self.lines)
        return [*itertools.accumulate(rows, _added)]

    def read(self, value: float | None) -> str:
        """A value as text, in percent for shares."""
        return formatting.percent(value) if self.share else formatting.figure(value)


@dataclass(frozen=True)
class _Frame:
    """Mapping from steps and values to SVG coordinates."""

    first: float
    """Step at the left edge."""
    last: float
    """Step at the right edge."""
    low: float
    """Value at the lower edge."""
    high: float
    """Value at the upper edge."""

    def x(self, step: float) -> float:
        share = (step - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        kept = min(max(value, self.low), self.high)
        return TOP + (self.high - kept) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def draw(chart: Chart) -> Markup:
    """A figure element: title, legend with the last values, plot, and note."""
    return tag(
        "figure",
        tag(
            "figcaption",
            tag("h4", chart.title, tag("span", _last_step(chart), class_="at")),
            tag("div", _keys(chart), class_="keys"),
        ),
        tag(
            "svg",
            tag("title", chart.title),
            _axes(chart),
            _areas(chart) if chart.stacked else [_curve(chart, line) for line in chart.lines],
            tag("line", class_="cursor", y1=TOP, y2=HEIGHT - BOTTOM, x1=0, x2=0, visibility="hidden"),
            [tag("circle", class_=f"dot {line.style}", r=3.2, visibility="hidden") for line in chart.lines],
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            data_chart=chart.id,
        ),
        tag("p", chart.note, class_="note") if chart.note else None,
        class_="chart",
    )


def readings(chart: Chart) -> dict[str, object]:
    """Data of the tooltips: coordinates and texts by line."""
    return {
        "group": chart.group,
        "axis": chart.axis,
        "steps": list(chart.steps),
        "x": [round(chart.frame.x(step), 1) for step in chart.steps],
        "lines": [
            {
                "y": [None if value is None else round(chart.frame.y(value), 1) for value in height],
                "text": [chart.read(value) for value in line.values],
            }
            for line, height in zip(chart.lines, chart.heights)
        ],
    }


def moving_mean(values: Values, width: int) -> list[float | None]:
    """Centred moving mean over `width` values, narrower at the ends; None where the window is empty.

    >>> moving_mean([0, 3, None, 6], 3)
    [1.5, 1.5, 4.5, 6.0]
    """
    half = width // 2
    windows = ([v for v in values[max(0, i - half) : i + half + 1] if v is not None] for i in range(len(values)))
    return [sum(window) / len(window) if window else None for window in windows]


def window(count: int) -> int:
    """Width of the moving mean: an odd number, about a twelfth of all steps."""
    return 2 * (count // 24) + 1


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values between two ends, including ends that are round.

    >>> ticks(0, 1)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = min((size * factor for factor in (1, 2, 2.5, 5, 10)), key=lambda unit: abs(unit - rough))
    first = math.ceil(low / step - 1e-9)
    return [round((first + place) * step, 12) for place in range(math.floor(high / step + 1e-9) - first + 1)]


def _frame(chart: Chart) -> _Frame:
    first, last = (min(chart.steps), max(chart.steps)) if chart.steps else (0, 1)
    low, high = chart.limits or _limits(chart)
    return _Frame(first, last, low, high)


def _limits(chart: Chart) -> tuple[float, float]:
    """Round ends of the y axis that include every curve and its band."""
    found = [value for height in chart.heights for value in height if value is not None]
    found += [end for line in chart.lines for ends in line.band if ends for end in ends]
    low, high = min([*found, *chart.holds], default=0.0), max([*found, *chart.holds], default=1.0)
    if high <= low:
        high = low + (abs(low) or 1.0)
    steps = ticks(low, high)
    unit = steps[1] - steps[0] if len(steps) > 1 else high - low
    return math.floor(low / unit + 1e-9) * unit, math.ceil(high / unit - 1e-9) * unit


def _keys(chart: Chart) -> Iterable[Markup]:
    for line in chart.lines:
        last = next((value for value in reversed(line.values) if value is not None), None)
        swatch = tag("i") if len(chart.lines) > 1 else None
        name = [swatch, tag("span", line.name) if line.name else None]
        yield tag("span", name, tag("b", chart.read(last)), class_=f"key {line.style}")


def _last_step(chart: Chart) -> str:
    """The last step, whose values the legend shows until the pointer selects another."""
    return f"{chart.axis} {chart.steps[-1]}" if chart.steps else ""


def _axes(chart: Chart) -> list[Child]:
    frame = chart.frame
    parts: list[Child] = []
    for value in ticks(frame.low, frame.high):
        y = frame.y(value)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="base" if value == 0 else "rule"))
        label = f"{100 * value:.10g}%" if chart.share else formatting.figure(value)
        parts.append(tag("text", label, x=LEFT - 7, y=y + 4.5, class_="tick end"))
    steps = [step for step in ticks(frame.first, frame.last, 5) if step == int(step)]
    for step in steps:
        parts.append(tag("text", f"{step:.0f}", x=frame.x(step), y=HEIGHT - BOTTOM + 18, class_="tick middle"))
    parts.append(tag("text", chart.axis, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 3, class_="tick middle axis"))
    return parts


def _curve(chart: Chart, line: Line) -> list[Child]:
    smooth = chart.smooth and len(chart.steps) >= SMOOTH_FROM
    parts: list[Child] = [_band(chart, line)] if line.band else []
    parts.append(_path(chart, line.values, f"curve {line.style} {'raw' if smooth else ''}"))
    if smooth:
        parts.append(_path(chart, moving_mean(line.values, window(len(chart.steps))), f"curve {line.style}"))
    return parts


def _added(below: list[float], own: list[float]) -> list[float]:
    return [low + value for low, value in zip(below, own)]


def _areas(chart: Chart) -> list[Child]:
    """Each curve as the area between it and the one below."""
    places = [chart.frame.x(step) for step in chart.steps]
    if len(places) == 1:  # a single step has a width, too
        places = [LEFT, WIDTH - RIGHT]
    below: Values = [0.0] * len(chart.steps)
    parts: list[Child] = []
    for line, height in zip(chart.lines, chart.heights):
        edges = [[chart.frame.y(value or 0.0) for value in each] for each in (height, below)]
        upper, lower = (edge * 2 if len(edge) == 1 else edge for edge in edges)
        outline = [*zip(places, upper), *reversed([*zip(places, lower)])]
        parts.append(tag("path", d=_piece(outline) + "Z", class_=f"area {line.style}") if outline else None)
        below = height
    return parts


def _path(chart: Chart, values: Values, style: str) -> Markup | None:
    """A curve, interrupted where a value is missing; a value without neighbours is a point."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for step, value in zip(chart.steps, values):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append((chart.frame.x(step), chart.frame.y(value)))
    drawn = "".join(_piece(piece) for piece in pieces if piece)
    return tag("path", d=drawn, class_=style.strip()) if drawn else None


def _piece(points: Sequence[tuple[float, float]]) -> str:
    if len(points) == 1:
        return f"M{points[0][0]:.1f} {points[0][1]:.1f}h.01"
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _band(chart: Chart, line: Line) -> Markup | None:
    ends = [(chart.frame.x(step), pair) for step, pair in zip(chart.steps, line.band) if pair is not None]
    if len(ends) < 2:
        return None
    outline = [(x, chart.frame.y(pair[1])) for x, pair in ends]
    outline += [(x, chart.frame.y(pair[0])) for x, pair in reversed(ends)]
    return tag("path", d=_piece(outline) + "Z", class_=f"band {line.style}")
