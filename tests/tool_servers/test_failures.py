"""Injected failures."""

from __future__ import annotations

import asyncio
import collections
import json

import pytest

from gog import judging, tool_api
from gog.spec import FailureInjection
from gog_tools.serving.failures import FailureInjector, reply

CASE = {"messages": judging.messages("q", ["yes"], "yes")}


async def app(scope, receive, send):
    await reply(send, 200, b"real answer")


def request(injector, method="POST", path="/v1/x", *, leave=False):
    """Status and body that an ASGI layer sends; leave: the client disconnects instead of waiting."""
    sent = []
    coming = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive():
        if coming:
            return coming.pop()
        if leave:
            return {"type": "http.disconnect"}
        return await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    asyncio.run(injector({"type": "http", "method": method, "path": path}, receive, send))
    return sent[0]["status"], sent[1]["body"]


def injector(**settings):
    return FailureInjector(app, FailureInjection(**settings), timeout_seconds=0.01)


def test_about_the_configured_fraction_of_requests_fails():
    layer = injector(rate=0.3, kinds=("empty",))
    failed = sum(request(layer)[1] == b"" for _ in range(2_000))
    assert 520 < failed < 680


def test_every_kind_of_failure_has_its_status_and_body():
    answers = {}
    for kind in ("timeout", "429", "5xx", "malformed", "empty"):
        layer = injector(rate=1, kinds=(kind,))
        answers[kind] = [request(layer) for _ in range(20)]
    assert {status for status, _ in answers["timeout"]} == {504}
    assert {status for status, _ in answers["429"]} == {429}
    assert {status for status, _ in answers["5xx"]} == {500, 503}
    assert {status for status, _ in answers["malformed"]} == {200} and {body for _, body in answers["empty"]} == {b""}
    for _, body in answers["malformed"]:
        with pytest.raises(ValueError):
            tool_api.SearchResponse.model_validate_json(body)


def test_the_same_seed_fails_the_same_requests():
    def outcomes(seed):
        layer = injector(rate=0.5, kinds=("empty", "429"), seed=seed)
        return [request(layer) for _ in range(50)]

    assert outcomes(1) == outcomes(1) != outcomes(2)


def test_a_timeout_ends_when_the_client_disconnects():
    layer = FailureInjector(app, FailureInjection(rate=1, kinds=("timeout",)), timeout_seconds=3_600)
    request(layer, leave=True)


def test_only_posts_fail():
    layer = injector(rate=1)
    assert request(layer, "GET", "/v1/models") == (200, b"real answer")


def test_health_and_metrics_pages_never_fail(servers):
    for path in ("/healthz", "/health", "/metrics"):
        assert {servers.failing.get(path).status for _ in range(10)} == {200}


def test_every_kind_of_failure_reaches_a_client_over_http(servers):
    seen = collections.Counter()
    for _ in range(40):
        answer = servers.failing.post(tool_api.CHAT_PATH, CASE)
        if answer.status == 429:
            assert answer.headers["retry-after"] == "1"
        if answer.status == 200 and answer.body:
            with pytest.raises((ValueError, KeyError)):
                json.loads(answer.body)["choices"]
        seen[answer.status, not answer.body] += 1
    assert {(504, False), (429, False), (200, False), (200, True)} <= seen.keys()
    assert {(500, False), (503, False)} & seen.keys()
