"""A request to end that one rank receives reaches all of them while they play, and nothing else does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.distributed
from support import ports

from gog_recipes.runtime import relay
from gog_recipes.runtime.interruption import CODE, Interruption
from gog_recipes.runtime.ranks import SINGLE

BOUND = 60
"""Seconds for what takes one at most."""
OFTEN = 0.01
"""Seconds between two looks."""


class CountedStore:
    """A store in this process that counts how often a key was looked for."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.looked = threading.Semaphore(0)

    def set(self, key: str, value: str) -> None:
        self.keys.add(key)

    def check(self, keys: list[str]) -> bool:
        found = self.keys.issuperset(keys)
        self.looked.release()
        return found


@pytest.fixture
def served() -> Callable[[], relay.Store]:
    """Opens connections to a store of torch's that a port serves."""
    server = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return lambda: torch.distributed.TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)


def reaches(interruption: Interruption) -> None:
    """Waits until a request comes."""

    async def wait() -> None:
        await interruption.sleep(BOUND)

    asyncio.run(wait())
    assert interruption.requested


def test_a_request_of_one_rank_ends_the_waits_of_the_others(served: Callable[[], relay.Store]) -> None:
    asked, *others = [Interruption() for _ in range(3)]
    with contextlib.ExitStack() as running:
        for each in (asked, *others):
            running.enter_context(relay.Relay("end", each, served, OFTEN).running())
        asked.request()
        for each in others:
            reaches(each)


def test_a_request_that_came_before_the_relay_is_passed_on(served: Callable[[], relay.Store]) -> None:
    asked, other = Interruption(), Interruption()
    asked.request()
    with relay.Relay("end", other, served, OFTEN).running(), relay.Relay("end", asked, served, OFTEN).running():
        reaches(other)


def test_a_request_to_an_earlier_attempt_beside_the_same_store_is_not_seen() -> None:
    store, later = CountedStore(), Interruption()
    store.set("gog/end/earlier", "1")
    with relay.Relay("gog/end/later", later, lambda: store, OFTEN).running():
        for _ in range(3):
            assert store.looked.acquire(timeout=BOUND)
    assert not later.requested


def test_no_two_relays_have_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    class First:
        rank, size = 0, 2

        def broadcast(self, item: str) -> str:
            return item

    store = CountedStore()
    monkeypatch.setattr(relay, "_connect", lambda: store)
    for number in (1, 2):
        asked = Interruption()
        asked.request()
        with relay.running(First(), asked):  # type: ignore[arg-type]
            pass
        assert len(store.keys) == number


def test_a_store_that_is_gone_ends_the_thread_and_nothing_else() -> None:
    gone, interruption = threading.Event(), Interruption()

    def connect() -> relay.Store:
        gone.set()
        raise torch.distributed.DistNetworkError("connection refused")

    with relay.Relay("end", interruption, connect, OFTEN).running():
        assert gone.wait(BOUND)
    assert not interruption.requested and "relay" not in {thread.name for thread in threading.enumerate()}


def test_a_single_rank_has_no_relay() -> None:
    with relay.running(SINGLE, Interruption()):
        assert "relay" not in {thread.name for thread in threading.enumerate()}


WAITS_IN_C = """
import ctypes, signal, threading
from gog_recipes.runtime import config, interruption, relay

libc, semaphore, waits = ctypes.CDLL(None), ctypes.create_string_buffer(64), threading.Event()

class Store:
    def check(self, keys):
        waits.wait()
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # the system may choose any thread
        return False

    def set(self, key, value):
        print("passed on", flush=True)
        libc.sem_post(semaphore)

def main():
    with interruption.PROCESS.deferred(), relay.Relay("end", interruption.PROCESS, Store, 600).running():
        waits.set()
        libc.sem_wait(semaphore)
        raise interruption.Interrupted

config.exit_with(main)
"""
"""A rank whose main thread waits for other ranks when SIGTERM comes, and runs no handler until they have arrived."""


def test_a_rank_that_waits_for_the_others_passes_its_request_on() -> None:
    line = [sys.executable, "-W", "ignore", "-c", WAITS_IN_C]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (CODE, "passed on\n"), done.stderr


PODS = """
import asyncio, sys, torch
from pathlib import Path
from gog_recipes.runtime import config, interruption, ranks, relay

async def play(rank, drained):
    Path(sys.argv[1], f"plays-{rank}").touch()
    if rank != drained:  # which has played, and waits for this one
        await interruption.PROCESS.race(asyncio.sleep(600))

def main():
    group = ranks.init(torch.device("cpu"))
    with interruption.PROCESS.deferred(), relay.running(group, interruption.PROCESS):
        try:
            asyncio.run(play(group.rank, int(sys.argv[2])))
        except interruption.Interrupted:
            pass
        if any(group.gather(interruption.PROCESS.requested)):
            Path(sys.argv[1], f"saved-{group.rank}").touch()
            raise interruption.Interrupted

config.exit_with(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("drained", [0, 1])
def test_of_two_pods_one_is_asked_to_end_and_both_save(drained: int, tmp_path: Path) -> None:
    """Two launchers with the rendezvous of `components.stage`; that of replica 0 serves the store."""
    (tmp_path / "program.py").write_text(PODS)
    rendezvous = ["--rdzv_backend=static", f"--rdzv_endpoint=127.0.0.1:{ports.free(1)[0]}", "--rdzv_id=run"]
    launch = [sys.executable, "-W", "ignore", "-m", "gog_recipes.runtime.launch", "--nnodes=2", "--nproc_per_node=1"]
    program = [str(tmp_path / "program.py"), str(tmp_path), str(drained)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with contextlib.ExitStack() as running:
        pods = [
            running.enter_context(
                subprocess.Popen([*launch, *rendezvous, f"--node_rank={node}", *program], env=environment)
            )
            for node in range(2)
        ]
        for pod in pods:
            running.callback(pod.terminate)
        deadline = time.monotonic() + 300
        while not all((tmp_path / f"plays-{rank}").exists() for rank in range(2)):
            assert time.monotonic() < deadline and not any(pod.poll() for pod in pods)
            time.sleep(0.05)
        pods[drained].terminate()
        assert [pod.wait(BOUND) for pod in pods] == [CODE, CODE]
    assert all((tmp_path / f"saved-{rank}").exists() for rank in range(2))
