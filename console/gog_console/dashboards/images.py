"""Draws the dashboards over a time range of a Prometheus server."""

from __future__ import annotations

from collections.abc import Sequence

from gog_console.dashboards import boards, drawing, panels
from gog_console.dashboards.prometheus import Prometheus, Series

POINTS = 360
"""Points of a curve at most; a panel has no room for more."""
WINDOWS = 40
"""Rate windows per time range at most; shorter windows show noise."""
USUAL_SCRAPE_SECONDS = 30


def scrape_seconds(source: Prometheus, at: float) -> int:
    """Seconds between two scrapes, measured over the minutes before `at`."""
    span = "max_over_time(timestamp(up)[10m:5s]) - min_over_time(timestamp(up)[10m:5s])"
    found = source.moment(f"min(({span}) / (count_over_time(up[10m]) - 1 > 0))", at)
    return max(1, round(found[0].points[0][1])) if found else USUAL_SCRAPE_SECONDS


def of_all(source: Prometheus, start: float, end: float) -> dict[str, bytes]:
    """{file name: PNG} of all dashboards.

    Args:
        source: the Prometheus server.
        start, end: time range, seconds since 1970.

    Raises:
        UserError: matplotlib is not installed, or the server does not answer.
    """
    drawing.matplotlib_ready()  # before any query
    step = max(scrape_seconds(source, end), round((end - start) / POINTS))
    window = f"{max(4 * step, round((end - start) / WINDOWS))}s"

    def evaluate(expr: str, instant: bool) -> Sequence[Series]:
        expression = panels.expanded(expr, rate_interval=window, range_=f"{round(end - start)}s")
        return source.moment(expression, end) if instant else source.curve(expression, start, end, step)

    return {f"{board.name}.png": drawing.image(board, evaluate, start, end) for board in boards.ALL}
