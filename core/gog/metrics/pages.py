"""What a process tells of itself to Prometheus, and how each metric is defined.

A stage, a tool server and the operator each have a page of their own, so that none shows metrics that it cannot know.
A definition holds all that a reader needs (unit, meaning, values of each label), because documentation, dashboards and
alerts are checked against it. What these classes do not do: decide when something is emitted (`emit`).

A gauge without labels is absent until it is first set: a stage that has no KL must not tell that it is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

prometheus_client.disable_created_metrics()  # a third of every page, read by nobody

Values = str | Sequence[str]
"""Of a label: all of them, or a sentence on what bounds them."""
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True)
class Definition:
    """name: without the endings that Prometheus adds."""

    page: str
    kind: str
    name: str
    unit: str
    help: str
    labels: dict[str, Values]
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name by which it is known and asked for."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its series, as an expression asks for them."""
        return tuple(f"{self.name}{suffix}" for suffix in SUFFIXES[self.kind])


class LazyGauge(Gauge):
    """A gauge without labels that is absent until it is set."""

    _told = False

    def set(self, value: float) -> None:
        super().set(value)
        self._told = True

    def collect(self) -> Iterable[Any]:
        return super().collect() if self._told else ()


@dataclass
class Page:
    """The metrics of one kind of process. name: whose they are; also: a page that is shown on this one, too."""

    name: str
    also: Page | None = None
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    definitions: list[Definition] = field(default_factory=list)

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
