"""Data model of a dashboard, from which Grafana's JSON and images are made.

Problem: dashboards drawn by hand name metrics that are not registered, which goes unnoticed because an empty panel looks
like a quiet system. Decision: panels are data; tests execute each expression, grafana.py and draw.py render the same
ones. Variables of an expression are Grafana's: $namespace and $run (both match everything where a label is absent, as on
one machine), $__rate_interval, $__range.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gog_console.dashboards import palette

Kind = Literal["lines", "number", "bars", "states"]
Unit = Literal[
    "none", "share", "seconds", "bytes", "bytes_per_second", "per_second", "dollars", "dollars_per_hour", "count"
]

WHERE = 'namespace=~"$namespace",run=~"$run"'
"""Label selector of a run's series on a cluster."""
OPERATOR = 'namespace=~"$namespace"'
"""Label selector of the operator's series, which have its own namespace and no run."""


@dataclass(frozen=True)
class Query:
    """One expression of a panel."""

    expr: str
    """In PromQL."""
    legend: str
    """Name of its series, with {{label}} for a label's value."""


@dataclass(frozen=True)
class Panel:
    """One panel."""

    title: str
    """Shown above it."""
    queries: tuple[Query, ...]
    """What it shows."""
    unit: Unit = "none"
    """Of its values."""
    kind: Kind = "lines"
    """How it shows them."""
    description: str = ""
    """Shown on request."""
    width: int = 8
    """In Grafana's columns, 24 to a row."""
    height: int = 8
    """In Grafana's rows."""
    stacked: bool = False
    """Whether its series are added up."""
    band: bool = False
    """Whether the second and third query are the upper and the lower edge of the first."""
    low: float | None = 0.0
    """Lower end of the axis; None follows the values."""
    high: float | None = None
    """Upper end of the axis; None follows the values."""
    limit: float | None = None
    """Where a line marks what should not be exceeded; None for no line."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """Colours of series by legend; others take the palette's."""
    states: tuple[tuple[float, str, str], ...] = ()
    """(value, word, colour) of a panel of kind "states", from the lowest value on."""
    absent: str = ""
    """Why there may be nothing to show; a panel without it shows something in every run."""

    @property
    def instant(self) -> bool:
        """Whether the panel shows one moment, the end of the time range, rather than a curve."""
        return self.kind == "bars"


@dataclass(frozen=True)
class Row:
    """Panels below a heading."""

    title: str
    """The heading."""
    panels: tuple[Panel, ...]
    """From left to right, then down."""


@dataclass(frozen=True)
class Dashboard:
    """One dashboard."""

    name: str
    """Name of its file; after "gog-" also its address in Grafana."""
    title: str
    """Shown in Grafana's list."""
    description: str
    """Shown below the title."""
    rows: tuple[Row, ...]
    """From top to bottom."""
    variables: Mapping[str, str]
    """Metric from whose label a variable takes its values, by the names of the variables that its expressions use."""

    def panels(self) -> Iterator[Panel]:
        for row in self.rows:
            yield from row.panels


def lines(title: str, *queries: Query, **settings: object) -> Panel:
    return Panel(title, queries, kind="lines", **settings)  # type: ignore[arg-type]


def number(title: str, expr: str, **settings: object) -> Panel:
    """The newest value, above a small curve."""
    return Panel(title, (Query(expr, ""),), kind="number", **{"width": 4, "height": 4, **settings})  # type: ignore[arg-type]


def bars(title: str, *queries: Query, **settings: object) -> Panel:
    return Panel(title, queries, kind="bars", **settings)  # type: ignore[arg-type]


def states(title: str, query: Query, *words: tuple[float, str, str], **settings: object) -> Panel:
    return Panel(title, (query,), kind="states", states=words, **settings)  # type: ignore[arg-type]


BREAKER = ((0.0, "closed", palette.GREEN), (1.0, "open", palette.RED))
STAGE = ((0.0, "at work", palette.BLUE), (1.0, "complete", palette.GREEN))


def expanded(
    expr: str, *, rate_interval: str = "5m", range_: str = "2h", namespace: str = ".*", run: str = ".*"
) -> str:
    """An expression with its variables replaced, as Grafana does before a query.

    >>> expanded('rate(gog_x_total{run=~"$run"}[$__rate_interval])', run="a", rate_interval="1m")
    'rate(gog_x_total{run=~"a"}[1m])'
    """
    values = {"$__rate_interval": rate_interval, "$__range": range_, "$namespace": namespace, "$run": run}
    for name, value in values.items():
        expr = expr.replace(name, value)
    return expr
