"""The dashboards, drawn over a span of time from a Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from gog.observe import dashboards, draw, panels
from gog.observe.prometheus import Prometheus, Series

POINTS = 360
"""Of a curve: more than a picture's panel has room for is blur."""
LEAST_STEP = 30


def of_all(source: Prometheus, start: float, end: float) -> dict[str, bytes]:
    """{file name: PNG}. start, end: seconds since 1970. Raises UserError without matplotlib or an answer."""
    step = max(LEAST_STEP, round((end - start) / POINTS))
    window = f"{max(4 * step, 240)}s"

    def ask(expr: str, instant: bool) -> Sequence[Series]:
        asked = panels.expanded(expr, rate_interval=window, range_=f"{round(end - start)}s")
        return source.moment(asked, end) if instant else source.curve(asked, start, end, step)

    return {f"{board.name}.png": draw.picture(board, ask, start, end) for board in dashboards.ALL}
