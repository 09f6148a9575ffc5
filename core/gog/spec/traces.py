"""Traces of a run: the collector, and the fraction of episodes that are traced."""

from __future__ import annotations

from pydantic import Field

from gog.spec.base import Share, Spec


class TracesSpec(Spec):
    """Traces of the run by OpenTelemetry: which turn of which episode waited, and for what. They never contain texts."""

    endpoint: str = Field(
        pattern=r"^https?://[^@\s]+$",
        max_length=1024,
        description="Base URL of a collector that accepts OTLP over HTTP: `http://jaeger:4318`. A key that it requires is "
        "set in the environment (OTEL_EXPORTER_OTLP_HEADERS), never here.",
    )
    share: Share = Field(
        0.01,
        description="Fraction of episodes that are traced, always the same ones; up to ten episodes of each step with a tool "
        "failure are traced besides [ours].",
    )


class StageTracesSpec(TracesSpec):
    """Traces of one stage."""

    traceparent: str | None = Field(
        None,
        pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        max_length=55,
        description="Span of which the stage is part, in the form of W3C Trace Context. Default: the run's; a stage without a run "
        "starts a trace.",
    )
    attempt: int = Field(1, ge=1, description="Number of the attempt; set by gog.")
