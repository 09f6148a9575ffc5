"""/healthz returns 200 only while the operator makes progress."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request

import pytest

from gog.metrics import definitions
from gog_operator.health import PASS_SECONDS, Health, serve
from gog_operator.workqueue import Key, WorkQueue

INTERVAL = 60.0


class Time:
    now = 1000.0

    def __call__(self):
        return self.now


class HeldLease:
    holds = True

    def held(self):
        return self.holds


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def health(time):
    return Health(WorkQueue(time), HeldLease(), INTERVAL, clock=time)


def test_a_resync_that_stopped_is_unhealthy(health, time):
    assert health.problems() == []
    health.record_resync()
    time.now += 3 * INTERVAL + 1
    assert "no resync for" in health.problems()[0]
    health.record_resync()
    assert health.problems() == []


def test_a_resync_that_never_happened_is_unhealthy(health, time):
    health.problems()
    time.now += 3 * INTERVAL + 1
    assert "no resync for" in health.problems()[0]


def test_an_operator_that_may_list_nothing_is_not_restarted(health, time):
    health.record_resync()
    listed = definitions.LAST_RESYNC._value.get()
    for _ in range(10):
        time.now += INTERVAL
        health.record_refusal()
        assert health.problems() == []
    assert definitions.LAST_RESYNC._value.get() == listed, "the alert of a missing resync still fires"


def test_an_operator_without_the_lease_is_healthy_and_has_time_to_resync_once_it_acquires_it(health, time):
    health.lease.holds = False
    health.problems()
    time.now += 100 * INTERVAL
    assert health.problems() == []
    health.lease.holds = True
    assert health.problems() == []


def test_a_stuck_worker_is_unhealthy(health, time):
    health.queue.add(Key("GoGRun", "ns", "a"))
    health.queue.take()
    time.now += PASS_SECONDS + 1
    health.record_resync()
    assert "a pass over one object has taken" in health.problems()[0]


def test_a_dead_thread_is_unhealthy(health):
    dead = threading.Thread(target=lambda: None, name="lease")
    dead.start()
    dead.join()
    health.threads = (dead,)
    assert health.problems() == ["lease has died"]


def test_the_probe_gets_the_problems(health, time):
    (server,) = serve(health, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with urllib.request.urlopen(f"{url}/healthz") as answer:
            assert answer.read() == b"ok"
        health.record_resync()
        time.now += 4 * INTERVAL
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/healthz")
        assert refused.value.code == 503
        assert b"no resync for" in refused.value.read()
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            assert b"gog_operator_queue_depth 0.0" in answer.read()
    finally:
        server.shutdown()
        server.server_close()


def test_metrics_with_a_port_of_their_own_are_not_on_that_of_the_probe(health):
    servers = serve(health, "127.0.0.1", 0, 0)
    probe, metrics = (f"http://127.0.0.1:{each.server_address[1]}" for each in servers)
    try:
        assert urllib.request.urlopen(f"{probe}/healthz").status == 200
        assert b"gog_operator_queue_depth" in urllib.request.urlopen(f"{metrics}/metrics").read()
        for url in (f"{probe}/metrics", f"{metrics}/healthz"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(url)
    finally:
        for each in servers:
            each.shutdown()
            each.server_close()
