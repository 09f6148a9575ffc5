"""Sends spans to a collector: a queue of bounded length and a thread.

A rollout must neither wait for a collector nor fail because of one. So `put` never blocks and never raises: trees that
find the queue full are dropped, and so are those that the collector refuses. Both are counted, and logged once. At the
end there are a few seconds for what is left. No locks are held, because signal handlers call `put` and `close` in the
middle of whatever the main thread was doing.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from gog import metrics
from gog.tracing.record import Tree

MAX_WAITING = 1000
"""Trees that wait at most; that of an episode has some fifteen spans."""
BATCH = 50
"""Trees in one request."""
BATCH_SECONDS = 1.0
"""Seconds for which trees are collected before a request."""
CLOSE_SECONDS = 3.0
"""Seconds in which `close` sends what is left."""


class ExportQueue:
    """Trees on their way to a collector."""

    def __init__(self, send: Callable[[Sequence[Tree]], str | None], log: Callable[[str], None]) -> None:
        """
        Args:
            send: sends trees; returns why the collector refused them, None when it took them. Called in the thread.
            log: takes one line, the first time that spans are dropped.
        """
        self._send, self._log = send, log
        self._queue: queue.SimpleQueue[Tree | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._logged = self._closed = False
        self._accepted = self._finished = 0
        metrics.initialise_traces()
        self._thread = threading.Thread(target=self._serve, name="traces", daemon=True)
        self._thread.start()

    def put(self, tree: Tree) -> None:
        """Adds a tree, or drops it when the queue is full."""
        if self._queue.qsize() >= MAX_WAITING:
            self._count_dropped(tree.size, "they are made faster than it takes them")
            return
        self._accepted += tree.size
        self._queue.put(tree)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Sends what is left for at most `seconds`; drops the rest."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join(seconds)
        self._closed = True
        if self._accepted > self._finished:
            self._count_dropped(self._accepted - self._finished, f"no answer within {seconds:g} s")

    def _serve(self) -> None:
        is_open = True
        while is_open:
            batch = [self._queue.get()]
            self._closing.wait(BATCH_SECONDS)
            while batch[-1] is not None and len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            is_open = batch[-1] is not None
            self._export([tree for tree in batch if tree is not None])

    def _export(self, trees: Sequence[Tree]) -> None:
        if not trees:
            return
        refusal, count = self._send(trees), sum(tree.size for tree in trees)
        if self._closed:  # `close` has counted these as dropped
            return
        self._finished += count
        if refusal is None:
            metrics.record_trace_spans("exported", count)
        else:
            self._count_dropped(count, refusal)

    def _count_dropped(self, count: int, why: str) -> None:
        metrics.record_trace_spans("dropped", count)
        if not self._logged:
            self._logged = True
            self._log(f"traces: spans are dropped, and counted in gog_trace_spans_total: {why}")
