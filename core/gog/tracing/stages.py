"""A stage's attempt as a span, told by its own process when it ends: well, with an error, or by SIGTERM.

Only SIGKILL leaves none. With several ranks the leader tells of the attempt, and every rank of its own episodes.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from gog.spec import StageConfig
from gog.tracing import ids, otlp
from gog.tracing.episodes import NOOP, NoopTracer, Tracer
from gog.tracing.export_queue import Outlet
from gog.tracing.record import Span, Tree, Value, now


def begin(
    config: StageConfig, rank: int, size: int, fresh: Callable[[], str], say: Callable[[str], None]
) -> NoopTracer:
    """The tracer of a stage's process. fresh: a uid that all ranks agree on, for a stage that no run has begun.
    Raises UserError when the package is missing."""
    traces = config.traces
    if traces is None:
        return NOOP
    send = otlp.sender(traces.endpoint)
    run = ids.SpanContext.of(traces.traceparent) if traces.traceparent else None
    above = run or ids.root(fresh())
    place = above.child(config.key, traces.attempt) if run else above
    common: dict[str, Value] = {"gog.run": config.run, "gog.stage": config.key, "gog.attempt": traces.attempt}
    attempt = Span("stage", now(), attributes={**common, "gog.kind": config.kind, "gog.ranks": size})
    tree = Tree(attempt, place, run) if rank == 0 else None
    tracer = StageTracer(Outlet(send, say), place, config.key, traces.share, {**common, "gog.rank": rank}, tree)
    tracer.watch()
    return tracer


class StageTracer(Tracer):
    """A tracer that tells of the attempt itself, too, if it is given the span."""

    def __init__(
        self, outlet: Outlet, stage: ids.SpanContext, key: str, share: float, common: Any, attempt: Tree | None
    ) -> None:
        super().__init__(outlet, stage, key, share, common)
        self._attempt, self._ended = attempt, False
        self._before: Any = None

    def watch(self) -> None:
        """Has the span told however the process ends."""
        atexit.register(self._leave)
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._interrupted)

    def end(self) -> None:
        self._end("ended", "")

    def _end(self, outcome: str, error: str) -> None:
        if self._ended:
            return
        self._ended = True
        atexit.unregister(self._leave)
        if self._attempt is not None:
            told = self._attempt.top
            told.ended, told.error = now(), error
            told.attributes["gog.outcome"] = outcome
            self._outlet.put(self._attempt)
        super().end()

    def _leave(self) -> None:
        """The process ends and nobody has said that all is well."""
        self._end("failed", type(getattr(sys, "last_value", None) or SystemExit()).__name__)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self._end("interrupted", "SIGTERM")
        if callable(self._before):
            self._before(number, frame)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
