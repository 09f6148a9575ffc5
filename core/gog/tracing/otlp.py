"""Spans as OpenTelemetry has them, to a collector by OTLP over HTTP. The only importer of opentelemetry.

The address is the manifest's and no other: what the environment says about addresses is not looked at, and a redirection
is a refusal. What it says about headers (OTEL_EXPORTER_OTLP_HEADERS, for a collector that asks for a key), certificates
and resource attributes holds.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gog.errors import UserError
from gog.tracing.record import Span, Tree

PATH = "/v1/traces"
TIMEOUT = 3.0
"""Seconds for one request with its repetitions."""
CLIENTS = ("attempt",)
"""Spans of requests to another process."""
PACKAGE = "opentelemetry.exporter.otlp.proto.http"


def require(where: str) -> None:
    """Raises UserError when the package that traces need is not installed. where: who asks for them."""
    try:
        found = importlib.util.find_spec(PACKAGE) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise UserError(
            "they need OpenTelemetry, which is not installed", where=where, remedy="pip install 'gog[traces]'"
        )


def sender(endpoint: str) -> Callable[[Sequence[Tree]], str | None]:
    """Sends trees to the collector at a base URL: why it did not take them, None when it did. Raises UserError."""
    require("traces")
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExportResult

    session = requests.Session()
    session.hooks["response"].append(_refuse_redirection)
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + PATH, timeout=TIMEOUT, session=session)
    resource, said = Resource.create({"service.name": "gog"}), _FirstWord()

    def send(trees: Sequence[Tree]) -> str | None:
        said.word = ""
        if exporter.export([span for tree in trees for span in _spans(tree, resource)]) is SpanExportResult.SUCCESS:
            return None
        return f"{endpoint}: {said.word or 'does not take them'}"

    return send


class _FirstWord(logging.Handler):
    """What the exporter logs, which is the only place where it says why it failed; kept from the process's own log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.word = ""
        logger = logging.getLogger("opentelemetry.exporter")
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.word = self.word or record.getMessage()[:300]


def _refuse_redirection(response: Any, *_: Any, **__: Any) -> None:
    """The exporter would take one for success."""
    if 300 <= response.status_code < 400:
        raise ConnectionRefusedError(f"HTTP {response.status_code}: it points elsewhere")


def _spans(tree: Tree, resource: Any) -> Iterator[Any]:
    """The tree, flat, each span with its ids."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    def context(place: Any, remote: bool = False) -> SpanContext:
        return SpanContext(int(place.trace, 16), int(place.span, 16), remote, TraceFlags(TraceFlags.SAMPLED))

    def flat(span: Span, place: Any, above: SpanContext | None, latest: int) -> Iterator[ReadableSpan]:
        own, ended = context(place), min(span.ended or latest, latest)
        attributes = {**span.attributes, "error.type": span.error} if span.error else span.attributes
        yield ReadableSpan(
            name=span.name,
            context=own,
            parent=above,
            resource=resource,
            attributes=attributes,
            kind=SpanKind.CLIENT if span.name in CLIENTS else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR) if span.error else Status(),
            start_time=span.begun,
            end_time=ended,
        )
        for number, child in enumerate(span.children):
            yield from flat(child, place.child(number), own, ended)

    yield from flat(tree.top, tree.place, context(tree.parent, remote=True) if tree.parent else None, tree.top.ended)
