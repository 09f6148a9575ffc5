"""Failures on purpose."""

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


def ask(injector, method="POST", path="/v1/x", *, leave=False):
    """Status and body that an ASGI layer sends; leave: the client goes away instead of waiting."""
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


def test_about_the_asked_share_of_requests_fails():
    layer = injector(rate=0.3, kinds=("empty",))
    failed = sum(ask(layer)[1] == b"" for _ in range(2_000))
    assert 520 < failed < 680


def test_every_kind_has_its_face():
    faces = {}
    for kind in ("timeout", "429", "5xx", "malformed", "empty"):
        layer = injector(rate=1, kinds=(kind,))
        faces[kind] = [ask(layer) for _ in range(20)]
    assert {status for status, _ in faces["timeout"]} == {504}
    assert {status for status, _ in faces["429"]} == {429}
    assert {status for status, _ in faces["5xx"]} == {500, 503}
    assert {status for status, _ in faces["malformed"]} == {200} and {body for _, body in faces["empty"]} == {b""}
    for _, body in faces["malformed"]:
        with pytest.raises(ValueError):
            tool_api.SearchResponse.model_validate_json(body)


def test_the_same_seed_fails_the_same_requests():
    def fates(seed):
        layer = injector(rate=0.5, kinds=("empty", "429"), seed=seed)
        return [ask(layer) for _ in range(50)]

    assert fates(1) == fates(1) != fates(2)


def test_a_timeout_ends_when_the_client_goes_away():
    layer = FailureInjector(app, FailureInjection(rate=1, kinds=("timeout",)), timeout_seconds=3_600)
    ask(layer, leave=True)


def test_what_is_not_a_post_is_never_failed():
    layer = injector(rate=1)
    assert ask(layer, "GET", "/v1/models") == (200, b"real answer")


def test_an_injected_failure_never_hits_the_health_page(servers):
    for path in ("/healthz", "/health", "/metrics"):
        assert {servers.failing.get(path).status for _ in range(10)} == {200}


def test_a_server_under_injection_shows_every_kind_over_http(servers):
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
