"""The dashboards, drawn over a span of time from a Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from gog_console.dashboards import boards, drawing, panels
from gog_console.dashboards.prometheus import Prometheus, Series

POINTS = 360
"""Of a curve: more than an image's panel has room for is blur."""
WINDOWS = 40
"""Of a rate: shorter ones show noise."""
USUAL_SCRAPE_SECONDS = 30


def scrape_seconds(source: Prometheus, at: float) -> int:
    """Between two scrapes, as the last minutes before `at` tell."""
    span = "max_over_time(timestamp(up)[10m:5s]) - min_over_time(timestamp(up)[10m:5s])"
    found = source.moment(f"min(({span}) / (count_over_time(up[10m]) - 1 > 0))", at)
    return max(1, round(found[0].points[0][1])) if found else USUAL_SCRAPE_SECONDS


def of_all(source: Prometheus, start: float, end: float) -> dict[str, bytes]:
    """{file name: PNG}. start, end: seconds since 1970. Raises UserError without matplotlib or an answer."""
    drawing.matplotlib_ready()  # before anything is asked
    step = max(scrape_seconds(source, end), round((end - start) / POINTS))
    window = f"{max(4 * step, round((end - start) / WINDOWS))}s"

    def ask(expr: str, instant: bool) -> Sequence[Series]:
        asked = panels.expanded(expr, rate_interval=window, range_=f"{round(end - start)}s")
        return source.moment(asked, end) if instant else source.curve(asked, start, end, step)

    return {f"{board.name}.png": drawing.image(board, ask, start, end) for board in boards.ALL}
