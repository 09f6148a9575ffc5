"""Heads and bodies of requests: how long they may take to arrive, and how much of them a process holds."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
import uvicorn

from gog_tools.serving import errors, heads, intake, middleware, process
from gog_tools.serving.failures import drain, reply

HALF = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n" + b"x" * 50_000
COMPLETE = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def part(body, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


def sends(*messages):
    """What a client does; then it does nothing more."""
    left = list(messages)

    async def receive():
        return left.pop(0) if left else await asyncio.Event().wait()

    return receive


def take(taker, *messages):
    return asyncio.run(taker.take(sends(*messages)))


def test_a_body_arrives_whole_and_what_the_client_does_afterwards_follows():
    async def read():
        with await intake.Intake().take(sends(part(b"a"), part(b""), part(b"b", more=False), GONE)) as held:
            return [await held.receive() for _ in range(2)]

    assert asyncio.run(read()) == [part(b"ab", more=False), GONE]


def test_a_body_that_does_not_arrive_in_time_is_refused_and_no_longer_counts():
    taker = intake.Intake(seconds=0.05, most=10)
    with pytest.raises(errors.RequestError, match=r"did not arrive within 0\.05 s") as caught:
        take(taker, part(b"abc"))
    assert (caught.value.status, taker.left) == (408, 10)


def test_a_body_that_arrives_in_drops_has_one_deadline():
    async def drip():
        await asyncio.sleep(0.02)
        return part(b"x")

    started = time.monotonic()
    with pytest.raises(errors.RequestError, match="did not arrive"):
        asyncio.run(intake.Intake(seconds=0.2).take(drip))
    assert time.monotonic() - started < 5


def test_bodies_share_a_number_of_bytes_until_their_requests_are_answered():
    taker = intake.Intake(most=10)
    first = take(taker, part(b"12345678", more=False))
    with pytest.raises(errors.RequestError, match="too many bytes") as caught:
        take(taker, part(b"1"), part(b"2"), part(b"3"), part(b"4" * 100, more=False))
    assert (caught.value.status, caught.value.retry_after, taker.left) == (503, 1, 2)
    with first, take(taker, part(b"12", more=False)):
        assert taker.left == 0
    assert taker.left == 10


def test_a_client_that_disconnects_within_its_body_is_gone_and_leaves_nothing_behind():
    taker = intake.Intake(most=10)
    with pytest.raises(intake.Gone):
        take(taker, part(b"abc"), GONE)
    assert taker.left == 10


@pytest.mark.parametrize("length", [[], [(b"content-length", b"99999999999")]])
def test_a_body_of_another_method_is_bounded_too(length):
    scope = {"type": "http", "method": "DELETE", "path": "/", "headers": [(b"transfer-encoding", b"chunked")] + length}
    assert middleware.refused_body(scope).status == (413 if length else 411)


# ---- over real connections


@contextlib.contextmanager
def serving(**bounds):
    """A server that answers each body with `done`, and its layer."""
    layer = middleware.Middleware("judge")
    layer.intake = intake.Intake(**bounds)

    async def app(scope, receive, send):
        await drain(receive)
        await reply(send, 200, b"done")

    layer.open(app)
    with process.bind("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(layer, http=heads.HeadProtocol, lifespan="off", log_config=None))
        server.capture_signals = contextlib.nullcontext
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield process.url_of(listener), layer
        finally:
            server.should_exit = True
            thread.join(30)


def half_sent(url, sent=HALF):
    """A connection with half of a body, or what else is sent."""
    connection = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), 30)
    connection.sendall(sent)
    return connection


def post(url, body):
    with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        connection.request("POST", "/", body)
        answer = connection.getresponse()
        return answer.status, answer.getheader("retry-after"), answer.read()


def test_connections_with_half_a_body_are_answered_with_408_and_closed():
    with serving(seconds=0.5) as (url, layer):
        connections = [half_sent(url) for _ in range(20)]
        for each in connections:
            with each, each.makefile("rb") as answer:
                assert answer.read().startswith(b"HTTP/1.1 408 ")  # read to the end of the connection
        assert layer.intake.left == intake.MAX_HELD
        assert post(url, b"x")[0] == 200


@pytest.mark.parametrize("sent", [b"", b"PO", b"POST / HTTP/1.1\r\nhost: x\r\n", COMPLETE + b"GET / HTTP/1.1\r\nhost:"])
def test_a_connection_whose_next_head_does_not_arrive_in_time_is_closed(monkeypatch, sent):
    monkeypatch.setattr(heads, "SECONDS", 0.2)
    with serving() as (url, _), half_sent(url, sent) as connection, connection.makefile("rb") as answer:
        found = answer.read()  # to the end of the connection
        assert found.startswith(b"HTTP/1.1 200 ") and found.endswith(b"done") if COMPLETE in sent else found == b""
        assert post(url, b"x")[0] == 200


def test_headers_without_end_close_the_connection():
    with serving() as (url, _), half_sent(url, b"POST / HTTP/1.1\r\nhost: x\r\n") as connection:
        lines = b"x-more: y\r\n" * 4_000
        with contextlib.suppress(OSError):  # the connection is closed while lines are sent
            for _ in range(1_000):
                connection.sendall(lines)
            pytest.fail("45 MB of headers were read")
        assert post(url, b"x")[0] == 200


def test_a_connection_is_used_again_after_longer_than_a_head_may_take(monkeypatch):
    monkeypatch.setattr(heads, "SECONDS", 0.2)
    with (
        serving() as (url, _),
        contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as client,
    ):
        client.request("POST", "/", b"x")
        client.getresponse().read()
        first = client.sock
        with half_sent(url, b"PO") as later, later.makefile("rb") as answer:
            assert answer.read() == b""  # the time of a head that began after the request has passed
        client.request("POST", "/", b"x")
        assert client.getresponse().status == 200 and client.sock is first


def test_bodies_beyond_the_bound_are_asked_to_come_again(wait_until):
    with serving(most=60_000) as (url, layer):
        with half_sent(url):
            wait_until(lambda: layer.intake.left <= 10_000)
            status, wait, _ = post(url, b"y" * 40_000)
            assert (status, wait) == (503, "1")
            assert post(url, b"y" * 1_000) == (200, None, b"done")
        wait_until(lambda: layer.intake.left == 60_000)
        assert post(url, b"y" * 40_000)[0] == 200


def test_a_disconnect_within_a_body_is_counted_as_gone_and_not_logged(start):
    server = start("gog_tools.judge.server")
    half_sent(server.url).close()
    gone = b'gog_server_requests_total{outcome="gone",server="judge"} 1.0'
    end = time.monotonic() + 60
    while gone not in server.get("/metrics").body and time.monotonic() < end:
        time.sleep(0.01)
    assert gone in server.get("/metrics").body
    code, log = server.stop()
    assert code == 0 and "Traceback" not in log
