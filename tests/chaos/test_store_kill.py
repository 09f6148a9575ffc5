"""Publishing to a real S3 server, killed with SIGKILL before and after every request."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support import s3
from support.builders import contents, publish, source_files

from gog import store as stores
from gog.spec import RetentionSpec
from gog.store import Store, faults, retention
from gog.store import s3 as bucket

FORK = multiprocessing.get_context("fork")
PART = 5 << 20
"""The smallest part that S3 accepts."""
OLD = {"adapter": b"old", "state": b"1"}
NEW = {"adapter": os.urandom(2 * PART + 1), "state": b"2"}


@pytest.fixture
def place(gateway: s3.Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bucket, "PART", PART)
    return lambda: stores.open_store(gateway.spec(tmp_path.name), s3.IMPATIENT)


def mortal(request: int, when: str) -> None:
    """Makes this process kill itself before or after its request of this number, from 0."""
    tries, lock, made = faults.Patience.tries, threading.Lock(), [0]

    def counted(self: faults.Patience, operation, where: str):
        with lock:
            mine = made[0] == request
            made[0] += 1
        if mine and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return tries(self, operation, where)
        finally:
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)

    faults.Patience.tries = counted  # type: ignore[method-assign]  (of a process about to die)


def killed(place, step: int, request: int, when: str) -> bool:
    """Publishes NEW in a process that is killed at a request; False if it ended first."""

    def work() -> None:
        store = place()
        mortal(request, when)
        publish(store, step, NEW)

    process = FORK.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def pointer(store: Store) -> int:
    there = store.backend.read("latest/sft")
    return int(there.data) if there else 0


def test_a_publication_killed_at_any_request_leaves_nothing_torn_and_the_next_one_succeeds(
    place, gateway: s3.Gateway, tmp_path: Path
) -> None:
    seen, step = set(), 1
    publish(place(), step, OLD)
    for request in range(100):
        ended = []
        for when in ("before", "after"):
            step += 1
            ended.append(killed(place, step, request, when))

            store = place()
            found = store.latest("sft")  # what another process sees
            assert found is not None
            assert contents(store, found) == (NEW if found.step == step else OLD)
            assert pointer(store) in (step - 1, step)
            seen.add((when, found.step == step))

            assert publish(store, step, NEW).step == step == pointer(store)
            assert contents(store, store.latest("sft")) == NEW
            step += 1
            publish(store, step, OLD)  # so that the next one is not already there
            swept = RetentionSpec(keep_last=1, grace_seconds=0)
            retention.apply(store, swept, datetime.now(UTC) + timedelta(hours=1))
        if not any(ended):
            break
    assert request > 8
    assert seen == {("before", False), ("before", True), ("after", False), ("after", True)}
    assert not [path for path in (gateway.folder / s3.BUCKET / tmp_path.name / "blobs").iterdir() if path.is_dir()]
    assert not store.backend.client.call("list_multipart_uploads", Prefix=store.backend.prefix).get("Uploads")


def test_latest_never_goes_backwards_while_two_processes_publish(place, tmp_path: Path) -> None:
    files = source_files(tmp_path, OLD)

    def work(first: int) -> None:
        store = place()
        for step in range(first, 30, 2):
            store.publish("sft", step, files)

    workers = [FORK.Process(target=work, args=(first,)) for first in (0, 1)]
    for worker in workers:
        worker.start()
    store, seen = place(), [0]
    while any(worker.is_alive() for worker in workers):
        seen.append(pointer(store))
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert seen == sorted(seen)
    assert pointer(store) == 29 and store.steps("sft") == list(range(30))


def test_a_sweep_killed_at_any_request_leaves_whole_checkpoints_only(place) -> None:
    store = place()
    for step in range(3):
        publish(store, step, {**OLD, "own": str(step).encode()})
    later = datetime.now(UTC) + timedelta(hours=1)
    spec = RetentionSpec(keep_last=1, grace_seconds=0)

    def work(request: int) -> None:
        own = place()
        mortal(request, "after")
        retention.apply(own, spec, later)

    for request in range(100):
        process = FORK.Process(target=work, args=(request,))
        process.start()
        process.join()
        for step in store.steps("sft"):
            store.check(store.manifest("sft", step))
        assert store.latest("sft").step == 2
        if process.exitcode == 0:
            break
    assert store.steps("sft") == [2] and request > 4
