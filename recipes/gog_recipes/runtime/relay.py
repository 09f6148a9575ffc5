"""Passes a request to end on to all ranks: where a node is drained, only the ranks of its pod receive SIGTERM.

Ranks agree to end at the edges of steps, by a gather (`Stage.is_interrupted`, `Rollouts.finish`). Before that gather each
plays its own episodes, so without a message the slowest play would decide when the request is noticed. The relay is that
message: a thread of each process writes a key to the process group's key-value store when this process is asked to end, and
looks for the key about once a second. It sets `Interruption.requested` only; what ranks do about it they still agree on.

The thread has a connection of its own, so it never holds what a collective waits for. The key is a new one for every relay,
chosen by rank 0: torchrun may start the workers again beside the same store. A main thread that waits for other ranks runs no
signal handlers, so the thread learns of SIGTERM from the interpreter's wakeup file descriptor.

It does not report a store that is gone (with the pod of rank 0): the next gather fails on that, as without a relay.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Protocol

from gog_recipes.runtime.interruption import Interruption
from gog_recipes.runtime.ranks import Ranks

SECONDS = 0.5
"""Between two looks for a request: once to write it, once to read it."""
CONNECT_SECONDS = 60.0
"""For the connection to the store."""
STOP_SECONDS = 5.0
"""How long the end of a stage waits for the thread, whose call a broken network may hold."""
STOP = 0
"""Ends the thread; no number of a signal."""


class Store(Protocol):
    """What a relay uses of torch.distributed.Store."""

    def set(self, key: str, value: str) -> None: ...
    def check(self, keys: list[str]) -> bool: ...


@contextlib.contextmanager
def running(ranks: Ranks, interruption: Interruption) -> Iterator[None]:
    """Inside, a request to end of any rank is one of all. All ranks at once; for a single one nothing happens."""
    if ranks.size == 1:
        yield
        return
    with Relay(f"gog/end/{ranks.broadcast(uuid.uuid4().hex)}", interruption, _connect).running():
        yield


def _connect() -> Store:
    """A new connection to the store of the process group, which torchrun or rank 0 serves."""
    import torch.distributed

    return torch.distributed.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=CONNECT_SECONDS),
    )


class Relay:
    """The relay of one process.

    Args:
        key: of the store; that of all processes of the group
        interruption: of this process
        connect: opens a connection to the store; called by the relay's thread
        seconds: between two looks
    """

    def __init__(
        self, key: str, interruption: Interruption, connect: Callable[[], Store], seconds: float = SECONDS
    ) -> None:
        self._key, self._interruption, self._connect = key, interruption, connect
        self._woken, self._wake = socket.socketpair()
        self._woken.settimeout(seconds)
        self._wake.setblocking(False)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Relays inside, once."""
        thread = threading.Thread(target=self._relay, name="relay", daemon=True)
        with self._woken, self._wake, self._signals():
            thread.start()
            try:
                yield
            finally:
                self._wake.send(bytes([STOP]))
                thread.join(STOP_SECONDS)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Wakes the thread at a signal, also while the main thread waits in a collective; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def _relay(self) -> None:
        with contextlib.suppress(RuntimeError, OSError):  # the store is gone, and the next gather fails
            store, came = self._connect(), b""
            while STOP not in came:
                if signal.SIGTERM in came or self._interruption.requested:
                    store.set(self._key, "1")
                    return
                if store.check([self._key]):
                    self._interruption.request()
                    return
                came = self._numbers()

    def _numbers(self) -> bytes:
        """Numbers of the signals that came, or STOP; empty after a while without any."""
        try:
            return self._woken.recv(64)
        except TimeoutError:
            return b""
