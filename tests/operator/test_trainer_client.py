"""A pod's response is bounded in time and size, and each of its fields is validated by itself."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support import tcp_server

from gog_operator.cluster import adapters, bounded_http, trainer_client
from gog_operator.cluster.trainer_client import parse_progress, request

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GOOD = {"step": 7, "total": 10, "metrics": {"reward": 0.5}}


@contextlib.contextmanager
def pod(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that treats each connection so, once it has read a request."""

    def run(connection: socket.socket) -> None:
        connection.recv(65_536)
        serve(connection)

    with tcp_server.TcpServer(run) as server:
        yield f"http://127.0.0.1:{server.port}"


def answering(body: bytes, head: bytes = OK) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def drips(connection: socket.socket) -> None:
    """Sends a byte from time to time until the client disconnects."""
    connection.sendall(OK + b"Content-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def drips_headers(connection: socket.socket) -> None:
    connection.sendall(OK)
    while True:
        connection.sendall(b"X: y\r\n")
        time.sleep(0.02)


def test_a_json_object_is_returned_unchanged():
    with pod(answering(json.dumps(GOOD).encode())) as url:
        assert request(url) == GOOD


@pytest.mark.parametrize("serve", [drips, drips_headers, lambda connection: connection.recv(1)])
def test_a_response_that_never_ends_is_abandoned_at_the_deadline(serve):
    with pod(serve) as url:
        begun = time.monotonic()
        assert request(url, 0.3) is None
        assert time.monotonic() - begun < 5


def test_a_redirect_is_not_followed():
    asked: list[int] = []
    with pod(lambda connection: asked.append(1)) as victim:
        head = b"HTTP/1.1 302 Found\r\nLocation: " + victim.encode() + b"\r\n"
        with pod(answering(b"{}", head)) as url:
            assert request(url) is None
            assert bounded_http.request(url, seconds=5, limit=10).status == 302
    assert asked == []


def test_no_more_than_the_limit_is_read():
    with pod(answering(b"x" * 1_000_000)) as url:
        assert bounded_http.request(url, seconds=5, limit=1000).body == b"x" * 1000
    with pod(answering(b'{"step": 1, "pad": "' + b"x" * trainer_client.MAX_ANSWER + b'"}')) as url:
        assert request(url) is None


@pytest.mark.parametrize("body", [b"", b"[1]", b"null", b"{", b"\xff", b'{"a":' * 10_000, b"[" * 60_000])
def test_a_response_that_is_not_an_object_is_none(body):
    with pod(answering(body)) as url:
        assert request(url) is None


def test_an_invalid_address_is_none():
    assert request("http://") is None and request("http://127.0.0.1:1/progress") is None


def test_a_policy_s_pod_that_trickles_its_response_is_abandoned_too():
    with pod(drips) as url, pytest.raises(OSError):
        adapters.requester(seconds=0.3)(url, {"model": "x"})


def test_known_fields_of_a_newer_trainer_s_document_are_read():
    seen = parse_progress({**GOOD, "checkpoint": {"ref": "sft/7", "complete": False}, "epoch": 3})
    assert (seen.step, seen.total, seen.metrics, seen.checkpoint.ref) == (7, 10, {"reward": 0.5}, "sft/7")


@pytest.mark.parametrize("wrong", [
    {"step": -1}, {"step": "seven"}, {"step": 10**30}, {"step": [1]}, {"checkpoint": "sft/7"}, {"checkpoint": {"ref": "x" * 999}},
    {"waiting": "soon"}, {"waiting": {"message": "x" * 2000}}, {"metrics": [1, 2]}, {"metrics": {str(n): n for n in range(300)}},
])  # fmt: skip
def test_an_invalid_field_is_dropped_and_the_others_are_kept(wrong):
    seen = parse_progress({"total": 10, **wrong})
    assert seen.model_dump(exclude_unset=True) == {"total": 10}


def test_a_service_that_the_stage_waits_for_is_read():
    waiting = {
        "reason": "JudgeDown",
        "message": "503",
        "since": "2026-03-14T09:26:53Z",
        "until": "2026-03-14T10:26:53Z",
    }
    assert parse_progress({**GOOD, "waiting": waiting}).waiting.reason == "JudgeDown"
    assert parse_progress(GOOD).waiting is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, 10**400, "x" * 1000, [[[[1]]]], [float("nan")]])
def test_a_metric_that_a_status_cannot_hold_is_dropped(value):
    assert parse_progress({"metrics": {"bad": value, "good": 0.5}}).metrics == {"good": 0.5}


def test_accuracy_by_policy_and_series_are_metrics():
    metrics = {"accuracy": {"sft": 0.5, "grpo": 0.75}, "losses": [1.0, 0.5], "skipped": None}
    assert parse_progress({"metrics": metrics}).metrics == metrics


def test_the_longest_of_too_many_metrics_are_dropped():
    metrics = {"reward": 0.5, **{f"series{number}": [0.123456789] * 500 for number in range(4)}}
    kept = parse_progress({"metrics": metrics}).metrics
    assert kept["reward"] == 0.5 and len(json.dumps(kept)) <= trainer_client.MAX_METRICS and 1 < len(kept) < 5


@pytest.mark.parametrize("body", [None, {}, {"epoch": 3}])
def test_without_a_known_field_there_is_no_progress(body):
    assert parse_progress(body) is None


def test_a_name_that_is_not_resolved_in_time_is_abandoned_at_the_deadline(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(120) and [])
    begun = time.monotonic()
    try:
        for _ in range(2 * bounded_http.LOOKUPS):
            with pytest.raises(OSError):
                bounded_http.request("http://slow.example:9090/progress", seconds=0.05, limit=10)
        assert time.monotonic() - begun < 60
        assert len([each for each in threading.enumerate() if each.name.startswith("lookup")]) <= bounded_http.LOOKUPS
    finally:
        released.set()
