"""Export of spans by OTLP over HTTP. The only module that imports OpenTelemetry.

The address is the manifest's and no other: addresses in the environment are ignored, and a redirect counts as a refusal.
Headers (OTEL_EXPORTER_OTLP_HEADERS, for a collector that requires a key), certificates and resource attributes are read
from the environment, as OpenTelemetry defines them.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gog.errors import UserError
from gog.tracing.ids import SpanContext
from gog.tracing.record import Span, Tree

PATH = "/v1/traces"
TIMEOUT = 3.0
"""Seconds for one request with its retries."""
CLIENTS = ("attempt",)
"""Names of spans that are requests to another process."""
PACKAGE = "opentelemetry.exporter.otlp.proto.http"


def require(where: str) -> None:
    """Checks that the package for traces is installed.

    Args:
        where: the field that requires it, for the message.

    Raises:
        UserError: it is not installed.
    """
    try:
        found = importlib.util.find_spec(PACKAGE) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise UserError(
            "they need OpenTelemetry, which is not installed", where=where, remedy="pip install 'gog[traces]'"
        )


def sender(endpoint: str) -> Callable[[Sequence[Tree]], str | None]:
    """A function that sends trees to the collector at a base URL.

    Returns:
        trees -> why the collector refused them, None when it took them.

    Raises:
        UserError: OpenTelemetry is not installed.
    """
    require("traces")
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExportResult

    session = requests.Session()
    session.hooks["response"].append(_refuse_redirect)
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + PATH, timeout=TIMEOUT, session=session)
    resource, logged = Resource.create({"service.name": "gog"}), _FirstMessage()

    def send(trees: Sequence[Tree]) -> str | None:
        logged.message = ""
        if exporter.export([span for tree in trees for span in _spans(tree, resource)]) is SpanExportResult.SUCCESS:
            return None
        return f"{endpoint}: {logged.message or 'refuses them'}"

    return send


class _FirstMessage(logging.Handler):
    """Captures the first message that the exporter logs, which is the only description of its failure. Keeps these
    messages out of the process's log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.message = ""
        logger = logging.getLogger("opentelemetry.exporter")
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.message = self.message or record.getMessage()[:300]


def _refuse_redirect(response: Any, *_: Any, **__: Any) -> None:
    """The exporter would count a redirect as a success."""
    if 300 <= response.status_code < 400:
        raise ConnectionRefusedError(f"HTTP {response.status_code}: it redirects elsewhere")


def _spans(tree: Tree, resource: Any) -> Iterator[Any]:
    """The spans of a tree as OpenTelemetry's, each with its ids."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan

    def native(context: SpanContext, is_remote: bool = False) -> Any:
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        return trace.SpanContext(int(context.trace, 16), int(context.span, 16), is_remote, flags)

    def flatten(span: Span, context: SpanContext, parent: Any, latest: int) -> Iterator[ReadableSpan]:
        own, ended = native(context), min(span.ended or latest, latest)
        attributes = {**span.attributes, "error.type": span.error} if span.error else span.attributes
        yield ReadableSpan(
            name=span.name,
            context=own,
            parent=parent,
            resource=resource,
            attributes=attributes,
            kind=trace.SpanKind.CLIENT if span.name in CLIENTS else trace.SpanKind.INTERNAL,
            status=trace.Status(trace.StatusCode.ERROR) if span.error else trace.Status(),
            start_time=span.started,
            end_time=ended,
        )
        for number, child in enumerate(span.children):
            yield from flatten(child, context.child(number), own, ended)

    parent = native(tree.parent, is_remote=True) if tree.parent else None
    yield from flatten(tree.root, tree.context, parent, tree.root.ended)
