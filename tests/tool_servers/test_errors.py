"""How failures of a vendor reach the client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gog import tool_api
from gog_tools.search import server
from gog_tools.search.backend import Found
from gog_tools.serving import errors


class Fails:
    """A text search that fails with one exception."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def search(self, queries: Any, tops: Any) -> list[Found]:
        raise self.error


def ask(backend) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a search that `backend` answers."""
    app, sent = server.text_application(backend), []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"query": "q"}', "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": tool_api.TEXT_SEARCH_PATH, "headers": [], "query_string": b""}
    asyncio.run(
        app({**scope, "raw_path": b"", "root_path": "", "scheme": "http", "http_version": "1.1"}, receive, send)
    )
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(each.get("body", b"") for each in sent[1:])


@pytest.mark.parametrize(
    ("error", "status", "failure"),
    [
        (errors.AuthFailed("the key is refused"), 502, "auth"),
        (errors.NoCredit("no searches left"), 402, "no_credit"),
        (errors.RateLimited("too many requests", retry_after=1.5), 429, "rate_limited"),
        (errors.Unavailable("no answer"), 503, "unavailable"),
        (errors.Unreachable("the name does not resolve"), 503, "unreachable"),
        (errors.Refused("the query is too long"), 400, "refused"),
    ],
)
def test_each_failure_of_a_vendor_has_its_status_and_its_kind_in_a_header(error, status, failure):
    found, headers, body = ask(Fails(error))
    assert (found, headers[tool_api.FAILURE_HEADER]) == (status, failure)
    assert failure in tool_api.FAILURES and error.message.encode() in body
    assert headers.get("retry-after") == ("2" if failure == "rate_limited" else None)


def test_a_fault_of_the_back_end_is_not_blamed_on_a_vendor():
    status, headers, _ = ask(Fails(ValueError("a bug")))
    assert status == 500 and tool_api.FAILURE_HEADER not in headers


def test_a_failed_answer_says_what_it_cost():
    error = errors.Unavailable("half of it", charge=errors.Charge(0.015, vendor="serpapi", calls=3))
    _, headers, _ = ask(Fails(error))
    assert headers[tool_api.COST_HEADER] == "0.015000" and headers[tool_api.CALLS_HEADER] == "3"
    assert headers[tool_api.VENDOR_HEADER] == "serpapi" and tool_api.CREDIT_HEADER not in headers


def test_an_answer_names_its_vendor_and_the_requests_that_were_made():
    class Paid:
        def search(self, queries, tops):
            return [Found([], cost_usd=0.005, vendor="brave", calls=2)]

    status, headers, _ = ask(Paid())
    assert (status, headers[tool_api.VENDOR_HEADER], headers[tool_api.CALLS_HEADER]) == (200, "brave", "2")
