"""Shares and intervals as SVG bars: accuracies with whiskers, paired differences, stacked shares, the timeline.

Labels have columns of their own, so that bars and whiskers cannot overlap them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gog_console import formatting
from gog_console.report.charts import ticks
from gog_console.report.markup import Child, Markup, tag

WIDTH, ROW = 400, 30
NAMES, VALUES = 118, 62
"""Widths of the columns for names and values, in SVG units."""


@dataclass(frozen=True)
class Bar:
    """A share with its interval."""

    name: str
    """Label."""
    share: float | None
    """Value, 0 to 1; None when unknown."""
    ends: tuple[float, float] | None = None
    """Ends of its interval."""
    strong: bool = False
    """Whether the bar is emphasised."""


@dataclass(frozen=True)
class Part:
    """A part of a stacked bar."""

    name: str
    """Label, shown as a tooltip."""
    share: float
    """Width, 0 to 1."""
    style: str
    """CSS class of its fill."""
    text: str = ""
    """Text inside; the share in percent when empty."""


@dataclass(frozen=True)
class Stretch:
    """A row of the timeline."""

    start: datetime
    """Start of the stage."""
    end: datetime
    """Its end, or the time of the report."""
    style: str
    """CSS class of its fill."""


def whiskers(bars: Sequence[Bar]) -> Markup:
    """Horizontal bars from 0 to 100 %, each with its interval and its value."""
    height = ROW * len(bars) + 22
    parts: list[Child] = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        x = _place(value)
        parts.append(tag("line", x1=x, x2=x, y1=2, y2=height - 20, class_="rule" if value else "base"))
        parts.append(tag("text", f"{100 * value:.0f}%", x=x, y=height - 6, class_="tick middle"))
    for row, bar in enumerate(bars):
        parts += _whisker(bar, ROW * row + ROW / 2)
    return _svg(height, "accuracy by policy", parts)


def forest(rows: Sequence[tuple[str, float, tuple[float, float]]]) -> Markup:
    """Differences with their intervals around a line at zero: (name, difference, interval)."""
    low = min([0.0, *(ends[0] for _, _, ends in rows)])
    high = max([0.0, *(ends[1] for _, _, ends in rows)])
    pad = (high - low or 0.1) * 0.06
    low, high = low - pad, high + pad
    height = ROW * len(rows) + 22
    left = min(220.0, 12 + 7 * max(len(name) for name, _, _ in rows))

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - VALUES)

    parts: list[Child] = []
    for value in ticks(low, high, 3):
        x = place(value)
        parts.append(tag("line", x1=x, x2=x, y1=2, y2=height - 20, class_="rule" if value else "zero"))
        parts.append(
            tag(
                "text",
                formatting.points(value).removesuffix(".0") if value else "0",
                x=x,
                y=height - 6,
                class_="tick middle",
            )
        )
    for row, (name, difference, ends) in enumerate(rows):
        y = ROW * row + ROW / 2
        sure = "sure" if ends[0] > 0 or ends[1] < 0 else "unsure"
        parts.append(tag("text", name, x=0, y=y + 4, class_="name"))
        parts.append(tag("line", x1=place(ends[0]), x2=place(ends[1]), y1=y, y2=y, class_=f"whisker {sure}"))
        parts.append(tag("circle", cx=place(difference), cy=y, r=4.5, class_=f"estimate {sure}"))
        parts.append(tag("text", formatting.points(difference), x=WIDTH, y=y + 4, class_="value end"))
    return _svg(height, "paired differences in percentage points", parts)


def stacked(rows: Sequence[tuple[str, Sequence[Part]]], *, height: int = 22) -> Markup:
    """Rows of shares that add up to 100 %; a part is labelled if its label fits. Names may be empty."""
    left = 66 if any(name for name, _ in rows) else 0
    parts: list[Child] = []
    for place, (name, pieces) in enumerate(rows):
        y = place * (height + 10)
        parts.append(tag("text", name, x=0, y=y + height / 2 + 4, class_="name") if name else None)
        parts += _pieces(pieces, left, y, height)
    return _svg(len(rows) * (height + 10) - 6, "shares", parts)


def histogram(counts: Sequence[int], styles: Sequence[str], names: Sequence[str]) -> Markup:
    """Upright bars with their counts on top."""
    height, most = 132, max([1, *counts])
    step = WIDTH / max(1, len(counts))
    parts: list[Child] = []
    for place, (count, style, name) in enumerate(zip(counts, styles, names)):
        tall = 92 * count / most
        middle = step * (place + 0.5)
        parts.append(tag("rect", x=middle - step * 0.36, y=112 - tall, width=step * 0.72, height=tall, class_=style))
        parts.append(tag("text", formatting.count(count), x=middle, y=107 - tall, class_="tick middle"))
        parts.append(tag("text", name, x=middle, y=127, class_="tick middle"))
    parts.append(tag("line", x1=0, x2=WIDTH, y1=112, y2=112, class_="base"))
    return _svg(height, "questions by samples solved", parts)


def stretch(row: Stretch, first: datetime, last: datetime) -> Markup:
    """A stage's interval within the run's duration, as a bar."""
    whole = max((last - first).total_seconds(), 1e-9)
    x = 200 * (row.start - first).total_seconds() / whole
    width = max(2.0, 200 * (row.end - row.start).total_seconds() / whole)
    return tag(
        "svg",
        tag("line", x1=0, x2=200, y1=7, y2=7, class_="rule"),
        tag("rect", x=min(x, 198.0), y=2, width=min(width, 200 - min(x, 198.0)), height=10, rx=2, class_=row.style),
        viewBox="0 0 200 14",
        preserveAspectRatio="none",
        class_="stretch",
        aria_hidden="true",
    )


def legend(keys: Sequence[tuple[str, str]]) -> Markup:
    """Swatches with their names: (name, style)."""
    swatch = [
        tag(
            "span",
            tag("svg", tag("rect", width=12, height=12, class_=style), viewBox="0 0 12 12", class_="swatch"),
            name,
        )
        for name, style in keys
    ]
    return tag("p", swatch, class_="legend")


def hatch() -> Markup:
    """Fill pattern of never-solved questions, defined once per page."""
    lines = tag("path", d="M-1 1l2 -2M0 6l6 -6M5 7l2 -2", class_="hatching")
    pattern = tag(
        "pattern",
        tag("rect", width=6, height=6, class_="level2"),
        lines,
        id="hatch",
        width=6,
        height=6,
        patternUnits="userSpaceOnUse",
    )
    return tag("svg", tag("defs", pattern), width=0, height=0, class_="hidden", aria_hidden="true")


def _place(share: float) -> float:
    return NAMES + share * (WIDTH - NAMES - VALUES)


def _whisker(bar: Bar, y: float) -> list[Child]:
    parts: list[Child] = [tag("text", bar.name, x=0, y=y + 4, class_="name")]
    parts.append(tag("text", formatting.percent(bar.share), x=WIDTH, y=y + 4, class_="value end"))
    if bar.share is None:
        return parts
    style = "bar strong" if bar.strong else "bar"
    parts.append(tag("rect", x=NAMES, y=y - 8, width=_place(bar.share) - NAMES, height=16, class_=style))
    if bar.ends is not None:
        low, high = _place(bar.ends[0]), _place(bar.ends[1])
        parts.append(
            tag("path", d=f"M{low:.1f} {y - 4}v8M{low:.1f} {y}H{high:.1f}M{high:.1f} {y - 4}v8", class_="whisker")
        )
    return parts


def _pieces(pieces: Sequence[Part], left: float, y: float, height: float) -> list[Child]:
    parts: list[Child] = []
    x, room = left, WIDTH - left
    for piece in pieces:
        width = piece.share * room
        parts.append(
            tag(
                "rect",
                tag("title", f"{piece.name}: {piece.text or formatting.percent(piece.share)}"),
                x=x,
                y=y,
                width=width,
                height=height,
                class_=piece.style,
            )
        )
        text = piece.text or formatting.percent(piece.share, 0)
        if width > 7.5 * len(text):
            parts.append(
                tag("text", text, x=x + width / 2, y=y + height / 2 + 4, class_=f"inside middle {piece.style}-text")
            )
        x += width
    return parts


def _svg(height: float, title: str, parts: Sequence[Child]) -> Markup:
    return tag("svg", tag("title", title), parts, viewBox=f"0 0 {WIDTH} {height:g}", role="img", class_="bars")
