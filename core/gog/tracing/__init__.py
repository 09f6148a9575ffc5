"""Traces a run as a tree of spans: run, attempt of a stage, episode, turn, tool call, attempt of the call.

Metrics count slow calls; a trace shows which turn of which episode waited, and for what. Without a collector in the
manifest the tracer does nothing: OpenTelemetry is not imported, and `span` costs one read of a context variable.

An episode's spans are kept in memory until it ends (`record`), when it is known whether they are exported (`episodes`);
a thread sends them to the collector (`export_queue`, `otlp`). Ids follow from the run's UID (`ids`), so the control plane
and the processes of all stages build one tree without exchanging ids. No text of a prompt, a page or an answer is part
of a span.
"""

from gog.tracing.describe import tool_call
from gog.tracing.episodes import NOOP, NoopTracer
from gog.tracing.record import span

__all__ = ["NOOP", "NoopTracer", "span", "tool_call"]
