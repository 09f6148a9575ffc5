"""Draws a dashboard as an image from a Prometheus server, for documentation and for users without Grafana.

Problem: Grafana's renderer wants a running Grafana and 16 GiB. Decision: the same panels, drawn by matplotlib, which is
imported here only and only when something is drawn. It shows what Grafana would, not how: no hovering, no zoom.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gog.errors import UserError
from gog_console.dashboards import grafana, palette
from gog_console.dashboards.panels import Dashboard, Panel, Query, Row, Unit
from gog_console.dashboards.prometheus import Series

INK, SOFT, FAINT, GRID, PAPER, CARD = "#1f1e1b", "#5f5b54", "#9a958b", "#e9e6df", "#f6f4ef", "#ffffff"
WIDTH = 16.0
"""Width of 24 columns in inches."""
COLUMN, LINE = WIDTH / 24, 0.36
"""Width and height of a cell of Grafana's grid in inches."""
HEAD, ROW_HEAD, GAP = 0.95, 0.42, 0.08
DPI = 110
LEGEND_LINES = 4
ROUND_TIMES = (60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)
"""Seconds between ticks."""

Evaluate = Callable[[str, bool], Sequence[Series]]
"""(expression with Grafana's variables, whether instant) -> series."""


@dataclass(frozen=True)
class Curve:
    """One series as it is drawn."""

    name: str
    """Its legend."""
    colour: str
    """Of the palette."""
    points: tuple[tuple[float, float], ...]
    """(seconds since 1970, value), the oldest first."""

    @property
    def last(self) -> float:
        return self.points[-1][1]


def image(board: Dashboard, evaluate: Evaluate, start: float, end: float) -> bytes:
    """Draws a dashboard.

    Args:
        board: what to draw.
        evaluate: evaluates an expression.
        start, end: time range, seconds since 1970.

    Returns:
        PNG.

    Raises:
        UserError: matplotlib is not installed.
    """
    pyplot = matplotlib_ready()
    heights = [max(place["y"] + place["h"] for _, place in grafana.places(row)) * LINE + ROW_HEAD for row in board.rows]
    total = HEAD + sum(heights) + 0.15
    figure = pyplot.figure(figsize=(WIDTH + 0.4, total), dpi=DPI, facecolor=PAPER)
    canvas = Canvas(figure, total, start, end)
    canvas.words(0.2, 0.42, board.title, size=19, weight="bold")
    canvas.words(0.2, 0.72, board.description, size=11, colour=SOFT)
    top = HEAD
    for row, height in zip(board.rows, heights):
        canvas.row(row, top, evaluate)
        top += height
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=PAPER, metadata={"Software": None})
    pyplot.close(figure)
    return file.getvalue()


def matplotlib_ready() -> Any:
    """pyplot with a file back end. Raises UserError without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("matplotlib draws the images and is not installed", remedy="pip install matplotlib") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    pyplot.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8.5, "axes.unicode_minus": True})
    return pyplot


class Canvas:
    """A figure with coordinates in inches from its upper left corner."""

    def __init__(self, figure: Any, height: float, start: float, end: float) -> None:
        self.figure, self.width, self.height = figure, figure.get_figwidth(), height
        self.start, self.end = start, end

    def words(self, x: float, y: float, text: str, *, size: float, colour: str = INK, **style: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, size=size, color=colour, **style)

    def box(self, x: float, y: float, width: float, height: float) -> Any:
        place = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def row(self, row: Row, top: float, evaluate: Evaluate) -> None:
        self.words(0.2, top + 0.29, row.title.upper(), size=8.5, colour=FAINT, weight="bold")
        for panel, place in grafana.places(row):
            x, y = 0.2 + place["x"] * COLUMN, top + ROW_HEAD + place["y"] * LINE
            self.panel(panel, x, y, place["w"] * COLUMN - GAP, place["h"] * LINE - GAP, evaluate)

    def panel(self, panel: Panel, x: float, y: float, width: float, height: float, evaluate: Evaluate) -> None:
        card = self.box(x, y, width, height)
        card.set(xticks=[], yticks=[], facecolor=CARD)
        for side in card.spines.values():
            side.set(color=GRID, linewidth=0.8)
        small = panel.kind == "number"
        self.words(x + 0.11, y + (0.22 if small else 0.24), panel.title, size=8 if small else 9.5,
                   colour=SOFT if small else INK, weight="normal" if small else "bold")  # fmt: skip
        curves = coloured(panel, evaluate)
        if not curves:
            self.words(x + width / 2, y + height / 2, panel.absent or "nothing", size=9, colour=FAINT, ha="center")
        elif panel.kind == "number":
            self._number(panel, curves[0], x, y, width, height)
        elif panel.kind == "bars":
            _bars(self.box(x + 0.15, y + 0.42, width - 0.3, height - 0.55), panel, curves)
        elif panel.kind == "states":
            names = 0.3 + 0.068 * max(len(curve.name) for curve in curves)
            axes = self.box(x + names, y + 0.42, width - names - 0.2, height - 1.1)
            self._states(axes, panel, curves)
            self._legend([(word, colour) for _, word, colour in panel.states], x + 0.15, y + height - 0.16, width)
        else:
            self._lines(panel, curves, x, y, width, height)

    def _number(self, panel: Panel, curve: Curve, x: float, y: float, width: float, height: float) -> None:
        over = panel.limit is not None and curve.last >= panel.limit
        calm = palette.BLUE if panel.limit is None else palette.GREEN
        colour = palette.RED if over else calm
        self.words(x + 0.11, y + 0.72, said(curve.last, panel.unit), size=19, colour=colour, weight="bold")
        spark = self.box(x + 0.02, y + 0.86, width - 0.04, height - 0.88)
        spark.axis("off")
        spark.set_xlim(self.start, self.end)
        times, values = broken(curve.points)
        spark.plot(times, values, color=colour, linewidth=1.1)
        lowest = min(value for _, value in curve.points)
        spark.fill_between(times, values, lowest, color=colour, alpha=0.12, linewidth=0)

    def _lines(self, panel: Panel, curves: list[Curve], x: float, y: float, width: float, height: float) -> None:
        shown = [each for each in curves if not (panel.band and each.name in edges(panel))]
        lines = self._legend([(each.name, each.colour) for each in shown], x + 0.15, y + height - 0.16, width)
        axes = self.box(x + 0.62, y + 0.44, width - 0.78, height - 0.92 - 0.17 * (lines - 1))
        self._time_axis(axes)
        if panel.stacked:
            _stack(axes, curves)
        else:
            _plot(axes, panel, curves)
        if panel.limit is not None:
            axes.axhline(panel.limit, color=palette.RED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=3)
        _scale(axes, panel)

    def _time_axis(self, axes: Any) -> None:
        import matplotlib.dates

        axes.set_xlim(self.start, self.end)
        room = axes.get_position().width * self.width / 0.5  # number of time labels that fit
        step = next((s for s in ROUND_TIMES if (self.end - self.start) / s <= min(6, room - 1)), 86400)
        ticks = list(range(math.ceil(self.start / step) * step, int(self.end) + 1, step))
        axes.set_xticks(ticks, [matplotlib.dates.num2date(t / 86400).strftime("%H:%M") for t in ticks])
        for tick, label in zip(ticks, axes.get_xticklabels()):  # labels at the ends remain inside the card
            label.set_horizontalalignment("left" if tick == self.start else "right" if tick == self.end else "center")
        axes.tick_params(axis="x", pad=5)
        axes.set_facecolor(CARD)
        axes.grid(axis="y", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelsize=7.5, labelcolor=SOFT)
        for name, side in axes.spines.items():
            side.set_visible(name == "bottom")
            side.set_color(GRID)

    def _states(self, axes: Any, panel: Panel, curves: list[Curve]) -> None:
        self._time_axis(axes)
        axes.grid(False)
        for i, curve in enumerate(curves):
            for begin, end, value in spans(curve.points):
                colour = max((state for state in panel.states if value >= state[0]), default=panel.states[0])[2]
                axes.barh(i, max(end - begin, (self.end - self.start) / 300), left=begin, height=0.62, color=colour)
        axes.set_yticks(range(len(curves)), [curve.name for curve in curves])
        axes.set_ylim(len(curves) - 0.4, -0.6)
        axes.tick_params(axis="y", labelcolor=INK, labelsize=8)

    def _legend(self, entries: Sequence[tuple[str, str]], x: float, y: float, width: float) -> int:
        """Draws the legend below a panel. Returns the number of its lines."""
        lines: list[list[tuple[str, str, float]]] = [[]]
        used = 0.0
        for name, colour in entries:
            length = 0.3 + 0.064 * len(name)
            if used + length > width - 0.2 and lines[-1]:
                lines.append([])
                used = 0.0
            lines[-1].append((name, colour, x + used))
            used += length
        if len(lines) > LEGEND_LINES:
            del lines[LEGEND_LINES:]
            lines[-1][-1] = ("and more", FAINT, lines[-1][-1][2])
        for i, line in enumerate(reversed(lines)):
            for name, colour, left in line:
                self.words(left, y - 0.17 * i + 0.035, "■", size=8, colour=colour)
                self.words(left + 0.14, y - 0.17 * i + 0.035, name, size=7.8, colour=SOFT)
        return len(lines)


# ---- data


def coloured(panel: Panel, evaluate: Evaluate) -> list[Curve]:
    """Every series of a panel with its name and colour. A value that is not finite is a gap, as Grafana shows it."""
    found = []
    for query in panel.queries:
        for series in evaluate(query.expr, panel.instant):
            points = tuple((time, value) for time, value in series.points if math.isfinite(value))
            if points:
                found.append((named(query, series.labels), points))
    if panel.kind == "states":
        found.sort(key=lambda each: each[1][0])
    elif panel.kind != "bars":
        found.sort(key=lambda each: order(panel, each[0]))
    return [Curve(name, palette.colour(name, panel.colours, i), points) for i, (name, points) in enumerate(found)]


def order(panel: Panel, name: str) -> tuple[int, str]:
    """Sort key: order of the colours, then name, so that a series has the same position in every panel."""
    words = [word for word in panel.colours if re.search(rf"\b{re.escape(word)}\b", name)]
    return (list(panel.colours).index(words[0]) if words else len(panel.colours), name)


def named(query: Query, labels: Mapping[str, str]) -> str:
    """
    >>> named(Query("x", "p95 {{tool}}"), {"tool": "judge"})
    'p95 judge'
    """
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), query.legend).strip()


def edges(panel: Panel) -> tuple[str, ...]:
    return tuple(query.legend for query in panel.queries[1:3]) if panel.band else ()


def broken(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Times and values with a NaN in every gap, so that lines are interrupted there."""
    step = min((b[0] - a[0] for a, b in itertools.pairwise(points)), default=1.0)
    times: list[float] = []
    values: list[float] = []
    for time, value in points:
        if times and time - times[-1] > 1.5 * step:
            times.append(times[-1] + step)
            values.append(math.nan)
        times.append(time)
        values.append(value)
    return times, values


def spans(points: Sequence[tuple[float, float]]) -> list[tuple[float, float, float]]:
    """(start, end, value) of each interval with a constant value.

    >>> spans(((0, 1), (10, 1), (20, 0), (50, 0), (60, 0)))
    [(0, 20, 1), (20, 30, 0), (50, 70, 0)]
    """
    step = min((b[0] - a[0] for a, b in itertools.pairwise(points)), default=1.0)
    found: list[tuple[float, float, float]] = []
    for time, value in points:
        if found and found[-1][1] == time and found[-1][2] == value:
            found[-1] = (found[-1][0], time + step, value)
        else:
            found.append((time, time + step, value))
    return found


# ---- styles


def _plot(axes: Any, panel: Panel, curves: list[Curve]) -> None:
    band = [curve for name in edges(panel) for curve in curves if curve.name == name]
    if len(band) == 2:
        (times, above), (_, below) = (broken(curve.points) for curve in band)
        axes.fill_between(times, above, below, color=palette.BLUE, alpha=0.15, linewidth=0)
    for curve in curves:
        if curve not in band:
            times, values = broken(curve.points)
            axes.plot(times, values, color=curve.colour, linewidth=1.6, solid_capstyle="round")


def _stack(axes: Any, curves: list[Curve]) -> None:
    """Stacked areas; a missing value counts as zero, and a time without values is a gap."""
    known = sorted({time for curve in curves for time, _ in curve.points})
    times, _ = broken([(time, 0.0) for time in known])
    below = [0.0] * len(times)
    for curve in curves:
        at = dict(curve.points)
        above = [low + at.get(time, 0.0) for time, low in zip(times, below)]
        here = [time in at for time in times]
        axes.fill_between(times, above, below, color=curve.colour, alpha=0.55, linewidth=0, where=here)
        axes.plot(
            times,
            [top if is_known else math.nan for top, is_known in zip(above, here)],
            color=curve.colour,
            linewidth=0.8,
        )
        below = above


def _scale(axes: Any, panel: Panel) -> None:
    import matplotlib.ticker

    low, high = axes.get_ylim()
    low = panel.low if panel.low is not None else low
    high = panel.high if panel.high is not None else max(high, (panel.limit or 0) * 1.15)
    if high <= low:
        high = low + 1
    axes.set_ylim(low, high * 1.02 if high > 0 else high)
    if panel.unit == "seconds" and high > 120:
        step = next((s for s in ROUND_TIMES if high / s <= 5), 86400)
        axes.yaxis.set_major_locator(matplotlib.ticker.MultipleLocator(step))
    else:
        axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: said(value, panel.unit))


def _bars(axes: Any, panel: Panel, curves: list[Curve]) -> None:
    """Each bar with its name above it and its value at its end."""
    most = panel.high or max(curve.last for curve in curves) or 1.0
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(len(curves), 0))
    thickness = min(0.42, 1.6 / len(curves))
    for i, curve in enumerate(curves):
        part = max(0.004, min(1.0, curve.last / most)) * 0.86
        axes.barh(i + 0.68, 0.86, height=thickness, color=GRID)
        axes.barh(i + 0.68, part, height=thickness, color=curve.colour)
        axes.text(0, i + 0.3, curve.name, size=8, color=SOFT, va="center")
        axes.text(1, i + 0.68, said(curve.last, panel.unit), size=9, color=INK, va="center", ha="right", weight="bold")


def said(value: float, unit: Unit) -> str:
    """A value with its unit.

    >>> said(0.0512, "share"), said(4100.0, "seconds"), said(2.1e9, "bytes_per_second"), said(52000, "count")
    ('5.12 %', '1 h 8 min', '2.1 GB/s', '52 k')
    """
    if not math.isfinite(value):
        return "–"
    if unit == "share":
        return f"{100 * value:.3g} %"
    if unit == "seconds":
        return _duration(value)
    if unit in ("dollars", "dollars_per_hour"):
        return f"${value:,.2f}" if abs(value) < 100 else f"${value:,.0f}"
    if unit == "count" and abs(value) < 1e4:
        return f"{value:,.0f}" if abs(value) >= 10 or abs(value - round(value)) < 0.05 else f"{value:.1f}"
    ending = {"bytes_per_second": "B/s", "bytes": "B", "per_second": "/s"}.get(unit, "")
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {letter}{ending}"
    return f"{value:.3g}{' ' if ending == 'B/s' else ''}{ending}"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms" if seconds else "0"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
