"""The lease, on an in-memory API that checks resource versions like a real one."""

from __future__ import annotations

import pytest

from gog_operator import lease
from gog_operator.cluster.kube import Api, ApiError


class Server(Api):
    """A server with one Lease object; it can be taken down."""

    def __init__(self):
        self.body, self.version, self.down = None, 0, False

    def send(self, request):
        method, body = request.method, request.body
        if self.down:
            raise ApiError(503, "", "down")
        if method == "GET":
            if self.body is None:
                raise ApiError(404, "NotFound", "leases")
            return {"metadata": {"resourceVersion": str(self.version)}, "spec": dict(self.body)}
        if method == "POST":
            if self.body is not None:
                raise ApiError(409, "AlreadyExists", "leases")
            self.body = dict(body["spec"])
        elif method == "PATCH":
            if body.get("metadata", {}).get("resourceVersion", str(self.version)) != str(self.version):
                raise ApiError(409, "Conflict", "leases")
            self.body |= body["spec"]
        self.version += 1
        return {}


class Time:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def ours(server, time):
    return lease.Lease(server, "ns", "gog-operator", "ours", time)


@pytest.fixture
def theirs(server, time):
    return lease.Lease(server, "ns", "gog-operator", "theirs", time)


def test_only_one_of_two_holds_it(ours, theirs):
    assert ours.attempt() and not theirs.attempt()
    assert ours.held() and not theirs.held()


def test_the_old_holder_stops_before_a_new_one_may_start(ours, theirs, server, time):
    """The old holder cannot reach the server: both never trust the lease at the same time, with room for one write in flight."""
    ours.attempt()
    theirs.attempt()
    last_trusted = None
    while not theirs.held():
        time.now += 0.5
        last_trusted = time.now if ours.held() else last_trusted
        theirs.attempt()
    assert last_trusted is not None
    assert time.now - last_trusted >= lease.WRITE_SECONDS
    assert not ours.attempt()


def test_a_lease_that_is_renewed_is_never_taken(ours, theirs, time):
    for _ in range(20):
        assert ours.attempt()
        assert not theirs.attempt()
        time.now += lease.RENEW


def test_a_released_lease_is_taken_at_once(ours, theirs):
    ours.attempt()
    ours.release()
    assert theirs.attempt()
    assert not ours.held()


def test_of_two_operators_that_take_it_at_the_same_time_one_gets_it(server, time):
    late = lease.Lease(server, "ns", "gog-operator", "late", time)
    early = lease.Lease(server, "ns", "gog-operator", "early", time)
    early.attempt()
    early.release()
    read = late._read

    def slow_read():
        record = read()
        early.attempt()
        return record

    late._read = slow_read
    with pytest.raises(ApiError, match="Conflict"):
        late.attempt()
    assert early.held() and not late.held()


def test_an_outage_suspends_the_lease_and_its_end_restores_it(ours, server, time):
    ours.attempt()
    server.down = True
    time.now += lease.TRUSTED
    with pytest.raises(ApiError):
        ours.attempt()
    assert not ours.held()
    server.down = False
    assert ours.attempt() and ours.held()


def test_nothing_is_written_without_the_lease_and_everything_may_be_read(ours, server, time):
    gated = lease.GatedApi(server, ours)
    ours.attempt()
    gated.call("PATCH", "/x", body={"spec": {}})
    time.now += lease.DURATION
    gated.call("GET", "/x")
    for method in ("POST", "PATCH", "DELETE"):
        with pytest.raises(ApiError, match="another operator"):
            gated.call(method, "/x", body={"spec": {}})
