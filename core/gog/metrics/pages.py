"""Pages of metrics for Prometheus, and the definitions of the metrics on them.

A stage, a tool server and the operator each have a page of their own, so that none shows metrics that it cannot know. A
definition holds everything that a reader needs (unit, meaning, values of each label), because documentation, dashboards
and alerts are checked against it. When a value is recorded is the matter of `emit`.

A gauge without labels is absent until it is first set: a stage without a KL must not report a KL of 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

prometheus_client.disable_created_metrics()  # they are a third of every page, and unused

Values = str | Sequence[str]
"""Values of a label: all of them, or a description of what bounds them."""
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
"""What Prometheus adds to the name of a metric, by kind."""


@dataclass(frozen=True)
class Definition:
    """A metric as documentation, dashboards and alerts know it."""

    page: str
    """Name of the page it is on."""
    kind: str
    """counter, gauge or histogram."""
    name: str
    """Name without the suffixes that Prometheus adds."""
    unit: str
    """Base unit, for people."""
    help: str
    """Meaning, in one sentence."""
    labels: dict[str, Values]
    """Values of each label, by its name."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, in its unit, ascending."""

    @property
    def exposed(self) -> str:
        """Name in queries: a counter's has its suffix."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its series, as they occur in expressions."""
        return tuple(f"{self.name}{suffix}" for suffix in SUFFIXES[self.kind])


class LazyGauge(Gauge):
    """A gauge without labels that is absent until it is set."""

    _is_set = False

    def set(self, value: float) -> None:
        super().set(value)
        self._is_set = True

    def collect(self) -> Iterable[Any]:
        return super().collect() if self._is_set else ()


@dataclass
class Page:
    """The metrics of one kind of process."""

    name: str
    """Kind of process: `stage`, `server`, `operator`."""
    also: Page | None = None
    """A page whose metrics are shown on this one as well."""
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    """What is scraped."""
    definitions: list[Definition] = field(default_factory=list)
    """Metrics defined on this page, in order."""

    def __post_init__(self) -> None:
        if self.also is not None:
            self.registry.register(self.also.registry)

    def counter(self, name: str, unit: str, help: str, **labels: Values) -> Counter:
        self._define("counter", name, unit, help, labels)
        return Counter(name, help, tuple(labels), registry=self.registry)

    def gauge(self, name: str, unit: str, help: str, **labels: Values) -> Gauge:
        self._define("gauge", name, unit, help, labels)
        return (Gauge if labels else LazyGauge)(name, help, tuple(labels), registry=self.registry)

    def histogram(self, name: str, unit: str, help: str, *, buckets: Sequence[float], **labels: Values) -> Histogram:
        self._define("histogram", name, unit, help, labels, tuple(buckets))
        return Histogram(name, help, tuple(labels), buckets=buckets, registry=self.registry)

    def _define(
        self, kind: str, name: str, unit: str, help: str, labels: dict[str, Values], buckets: tuple[float, ...] = ()
    ) -> None:
        self.definitions.append(Definition(self.name, kind, name, unit, help, labels, buckets))
