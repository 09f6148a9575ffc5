"""The way of spans to a collector: a queue of bounded length and a thread of its own.

A rollout must never wait for a collector, nor fall for one. So `put` cannot block or fail: what finds the queue full is
dropped, and so is what the collector does not take; both are counted, and said once. At the end there are a few seconds
for what is left. Nothing here holds a lock, because `put` and `close` are also called by a signal's handler, in the
middle of whatever the main thread was doing.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from gog import metrics
from gog.tracing.record import Tree

LONGEST = 1000
"""Trees that wait at most; an episode's has some fifteen spans."""
BATCH = 50
"""Trees in one request."""
DELAY = 1.0
"""Seconds in which spans gather before they are sent."""
PATIENCE = 3.0
"""Seconds, at the end, for what is left."""


class Outlet:
    """send: trees -> why the collector did not take them, None when it did. say: tells the user a sentence."""

    def __init__(self, send: Callable[[Sequence[Tree]], str | None], say: Callable[[str], None]) -> None:
        self._send, self._say = send, say
        self._queue: queue.SimpleQueue[Tree | None] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._said = self._closed = False
        self._offered = self._settled = 0
        metrics.initialise_traces()
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    def put(self, tree: Tree) -> None:
        if self._queue.qsize() >= LONGEST:
            self._dropped(tree.size, "they come faster than it takes them")
            return
        self._offered += tree.size
        self._queue.put(tree)

    def close(self, patience: float = PATIENCE) -> None:
        """Sends what is left, for at most `patience` seconds; what is not sent by then is dropped."""
        self._ending.set()
        self._queue.put(None)
        self._thread.join(patience)
        self._closed = True
        if self._offered > self._settled:
            self._dropped(self._offered - self._settled, f"no answer within {patience:g} s")

    def _work(self) -> None:
        going = True
        while going:
            batch = [self._queue.get()]
            self._ending.wait(DELAY)
            while batch[-1] is not None and len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            going = batch[-1] is not None
            self._bring([tree for tree in batch if tree is not None])

    def _bring(self, trees: Sequence[Tree]) -> None:
        if not trees:
            return
        refused, count = self._send(trees), sum(tree.size for tree in trees)
        if self._closed:  # counted as dropped by whoever could wait no longer
            return
        self._settled += count
        if refused is None:
            metrics.trace_spans("exported", count)
        else:
            self._dropped(count, refused)

    def _dropped(self, count: int, why: str) -> None:
        metrics.trace_spans("dropped", count)
        if not self._said:
            self._said = True
            self._say(f"traces: spans are dropped, and counted in gog_trace_spans_total: {why}")
