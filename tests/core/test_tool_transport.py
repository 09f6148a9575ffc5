"""Failures of a server over HTTP: what is retried, how each is typed, and how much of an answer is read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from support import forward_proxy
from support.forward_proxy import ForwardProxy, proxy
from support.loopback import (
    HITS,
    WORKING,
    Provider,
    half,
    hang,
    piecemeal,
    reset,
    responds,
    search,
)

from gog import tool_api, tool_client, tool_transport
from gog.spec import ToolsSpec
from gog.tool_client import Toolbox
from gog.tool_types import FailureKind, Reply

__all__ = ["proxy"]

FAILURES = {
    "not JSON": (responds(b"<html>busy</html>"), FailureKind.MALFORMED),
    "empty": (responds(b""), FailureKind.MALFORMED),
    "another shape": (responds({"results": []}), FailureKind.MALFORMED),
    "a field too many": (responds({"hits": [], "advertisement": 1}), FailureKind.MALFORMED),
    "429": (responds(b"slow down", 429), FailureKind.RATE_LIMITED),
    "503 with a time": (responds(b"", 503, **{"retry-after": "0"}), FailureKind.RATE_LIMITED),
    "500": (responds(b"oops", 500), FailureKind.SERVER_ERROR),
    "503": (responds(b"", 503), FailureKind.SERVER_ERROR),
    "408": (responds(b"", 408), FailureKind.SERVER_ERROR),
    "reset": (reset, FailureKind.CONNECTION),
    "half an answer": (half, FailureKind.CONNECTION),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_retried_and_has_no_effect_when_the_next_attempt_works(name: str) -> None:
    reply = search([FAILURES[name][0], responds(HITS)])
    assert reply.failure is None and reply.attempts == 2
    assert [hit.title for hit in reply.unwrap()] == [f"page {n}" for n in range(5)]


def test_what_is_not_http_is_quoted_in_one_line() -> None:
    async def not_http(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"SSH-2.0 busy\r\n\r\n")
        request.transport.close()
        return await hang(request)

    failure = search([not_http], attempts=1).failure
    assert failure is not None and failure.kind is FailureKind.CONNECTION
    assert "SSH-2.0" in failure.message and failure.message.isprintable()


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_that_persists_is_typed(name: str) -> None:
    handler, kind = FAILURES[name]
    reply = search([handler], attempts=2)
    assert reply.failure is not None
    assert (reply.failure.tool, reply.failure.kind, reply.attempts) == ("textSearch", kind, 2)


@pytest.mark.parametrize("status", [400, 404, 413, 302])
def test_a_refused_request_is_not_sent_again(status: int) -> None:
    reply = search([responds(b"no such thing", status, location="/elsewhere")])
    assert reply.failure is not None and reply.attempts == 1
    assert (reply.failure.kind, reply.failure.message) == (FailureKind.REFUSED, f"HTTP {status}: no such thing")


@pytest.mark.parametrize(
    ("status", "kind"), [(401, FailureKind.AUTH), (403, FailureKind.AUTH), (402, FailureKind.NO_CREDIT)]
)
def test_a_closed_account_is_a_failure_of_its_own_kind_and_is_not_asked_again(status: int, kind: FailureKind) -> None:
    reply = search([responds(b"no", status)])
    assert reply.failure is not None and (reply.failure.kind, reply.attempts) == (kind, 1)


@pytest.mark.parametrize(
    ("status", "header", "kind"),
    [
        (502, "auth", FailureKind.AUTH),
        (402, "no_credit", FailureKind.NO_CREDIT),
        (429, "rate_limited", FailureKind.RATE_LIMITED),
        (429, "No_Credit ", FailureKind.NO_CREDIT),
        (503, "unavailable", FailureKind.SERVER_ERROR),
        (503, "unreachable", FailureKind.SERVER_ERROR),
        (400, "refused", FailureKind.REFUSED),
        (500, "something newer", FailureKind.SERVER_ERROR),
    ],
)
def test_a_failure_that_the_server_names_takes_precedence_over_its_status(
    status: int, header: str, kind: FailureKind
) -> None:
    reply = search([responds(b"", status, **{"X-GoG-Failure": header})], attempts=1)
    assert reply.failure is not None and reply.failure.kind is kind


def test_a_hanging_server_costs_one_deadline_per_attempt() -> None:
    reply = search([hang, responds(HITS)], deadline_seconds=0.4)
    assert reply.failure is None and reply.attempts == 2
    assert 0.4 <= reply.seconds < 5


def test_an_unreachable_server_is_a_connection_failure() -> None:
    async def scenario() -> Reply[Any]:
        async with Provider(WORKING) as provider:
            address = provider.url
        async with Toolbox({"textSearch": address}, ToolsSpec(attempts=2, backoff_seconds=0)) as tools:
            return await tools.search_text("ring")

    reply = asyncio.run(scenario())
    assert reply.failure is not None and reply.failure.kind is FailureKind.CONNECTION


def test_a_retry_waits_for_as_long_as_the_server_requests() -> None:
    reply = search([responds(b"", 429, **{"retry-after": "0.15"}), responds(HITS)])
    assert reply.attempts == 2 and reply.seconds >= 0.15
    late = search([responds(b"", 429, **{"retry-after": "3600"}), responds(HITS)])
    assert late.failure is not None and late.attempts == 1


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": DATE}, 30.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 07:27:15 GMT"}, 45.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 07:28:15 GMT"}, 0.0),
        ({"retry-after": DATE, "date": "yesterday"}, 30.0),
        ({"retry-after": "Wed, 99 Oct 2026 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_the_time_to_wait_is_read_from_seconds_and_from_a_date(
    headers: Mapping[str, str], seconds: float | None
) -> None:
    half_a_minute_before = datetime(2026, 10, 21, 7, 27, 30, tzinfo=UTC).timestamp()
    assert tool_transport.retry_after(headers, lambda: half_a_minute_before) == seconds


@pytest.mark.parametrize("asked", ["soon", "", "-1", "²"])
def test_an_unreadable_retry_after_falls_back_to_the_backoff(asked: str) -> None:
    assert search([responds(b"", 429, **{"retry-after": asked}), responds(HITS)]).attempts == 2


@pytest.mark.parametrize("asked", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_server_that_asks_for_no_time_is_not_asked_at_once(asked: str) -> None:
    limited = responds(b"", 429, **{"Retry-After": asked})
    reply = search([limited, responds(HITS)], backoff_seconds=0.2)
    assert reply.failure is None and reply.seconds >= 0.1


@pytest.mark.parametrize("asked", ["9" * 400, "Wed, 21 Oct 9999 07:28:00 GMT"])
def test_a_server_that_asks_for_ages_asks_for_a_day(asked: str) -> None:
    reply = search([responds(b"", 429, **{"Retry-After": asked})])
    assert reply.failure is not None and reply.failure.retry_after == 86_400


def test_a_cost_that_cannot_be_is_not_believed() -> None:
    replies = [search([responds(HITS, **{"X-GoG-Cost-USD": cost})]) for cost in ("1e308", "nan", "-1", "free")]
    assert [(reply.failure, reply.usd) for reply in replies] == [(None, 0.0)] * 4


def test_pages_of_every_attempt_are_counted_as_the_server_reports_them() -> None:
    first = responds(b"later", status=503, **{"X-GoG-Pages-Failed": "3"})
    then = responds(HITS, **{"X-GoG-Pages-Read": "4", "X-GoG-Pages-Failed": "1"})
    assert search([first, then]).pages == (4, 4)
    assert search([responds(HITS, **{"X-GoG-Pages-Read": "many", "X-GoG-Pages-Failed": "-1"})]).pages == (0, 0)


def test_an_answer_that_repeats_our_key_is_read_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXT_SEARCH_GOG_API_KEY", "open sesame")
    (hit,) = search([responds({"hits": [{"title": "you sent open sesame"}]})]).unwrap()
    assert hit.title == "you sent [redacted]"


def test_an_answer_in_pieces_is_read_to_its_end() -> None:
    assert len(search([piecemeal]).unwrap()) == 5
    long = {"hits": [{"title": "long", "thumbnail": "x" * 3_000_000}]}
    assert len(search([responds(long)]).unwrap()[0].thumbnail) == 3_000_000


def test_an_answer_beyond_the_size_limit_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_client, "MAX_TEXT_BYTES", 1000)
    reply = search([responds({"hits": [{"title": "x" * 2000}]})], attempts=1)
    assert reply.failure is not None and reply.failure.kind is FailureKind.MALFORMED
    assert reply.failure.message == "the answer is longer than 1,000 bytes"


@pytest.mark.parametrize(
    "body",
    [
        b'{"hits": [' + b"[]," * 50_000 + b"[]]}",
        b"{" + b'"a":1,' * 50_000 + b'"b":1}',
        b'"' + b"\\u0041" * 400_000 + b'"',
    ],
    ids=["lists", "fields", "escapes"],
)
def test_an_answer_of_too_many_values_is_malformed_before_it_is_parsed(body: bytes) -> None:
    reply = search([responds(body)], attempts=1)
    assert reply.failure is not None and reply.failure.kind is FailureKind.MALFORMED
    assert reply.failure.message == "the answer has more than 40,000 values"


def test_a_hostile_answer_is_named_by_its_first_fault() -> None:
    reply = search([responds(b'{"hits": [' + b"[]," * 15_000 + b"[]]}")], attempts=1)
    assert reply.failure is not None
    assert reply.failure.words == "malformed: 1 validation error for SearchResponse"


def test_answers_are_requested_without_compression() -> None:
    async def zipped(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=json.dumps({"hits": [{"title": "x" * 5000}]}).encode())
        response.enable_compression()
        return response

    reply = search([zipped])
    assert reply.failure is None and len(reply.unwrap()) == 1


# ---- requests and answers


def test_a_tool_that_only_a_proxy_can_reach_is_called_through_it(proxy: ForwardProxy) -> None:
    async def call() -> bytes:
        async with Provider({"textSearch": [responds(HITS)]}) as provider, tool_transport.open_session() as session:
            port = provider.url.rpartition(":")[2]
            url = f"http://{forward_proxy.HOST}:{port}{tool_api.TEXT_SEARCH_PATH}"
            return await tool_transport.Transport(session, "textSearch", url).send(b"{}")

    assert json.loads(asyncio.run(call())) == HITS
    assert [line.split(" ")[0] for line in proxy.requests] == ["POST"]
