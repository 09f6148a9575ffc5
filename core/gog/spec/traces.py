"""Where a run's traces go, and of how many episodes there are any."""

from __future__ import annotations

from pydantic import Field

from gog.spec.base import Share, Spec


class TracesSpec(Spec):
    """Traces of the run by OpenTelemetry: which turn of which episode waited, and for what. Texts are never part of one."""

    endpoint: str = Field(
        pattern=r"^https?://[^@\s]+$",
        max_length=1024,
        description="Base URL of a collector that takes OTLP over HTTP: `http://jaeger:4318`. What it asks for as a key is "
        "in the environment (OTEL_EXPORTER_OTLP_HEADERS), never here.",
    )
    share: Share = Field(
        0.01,
        description="Share of episodes that are traced, always the same ones; besides, up to ten of each step that a tool "
        "failed [ours].",
    )


class StageTracesSpec(TracesSpec):
    """Traces of one stage."""

    traceparent: str | None = Field(
        None,
        pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        max_length=55,
        description="Span that the stage is part of, as W3C Trace Context writes it. Default: the run's, or for a stage "
        "that stands alone its own.",
    )
    attempt: int = Field(1, ge=1, description="Number of the attempt; gog sets it.")
