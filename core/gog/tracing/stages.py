"""The span of a stage's attempt, exported by its own process however it ends: well, by an error, or by SIGTERM.

SIGKILL leaves no span. With several ranks, rank 0 exports the attempt, and every rank its own episodes.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from gog.spec import StageConfig
from gog.tracing import ids, otlp
from gog.tracing.episodes import NOOP, NoopTracer, Tracer
from gog.tracing.export_queue import ExportQueue
from gog.tracing.record import Span, Tree, Value, now


def begin(
    config: StageConfig, rank: int, size: int, fresh_uid: Callable[[], str], log: Callable[[str], None]
) -> NoopTracer:
    """The tracer of one process of a stage.

    Args:
        config: configuration of the stage.
        rank: rank of this process.
        size: number of ranks.
        fresh_uid: a UID on which all ranks agree, for a stage without a run.
        log: takes one line when spans are lost.

    Raises:
        UserError: the package for traces is not installed.
    """
    traces = config.traces
    if traces is None:
        return NOOP
    send = otlp.sender(traces.endpoint)
    run = ids.SpanContext.of(traces.traceparent) if traces.traceparent else None
    root = run or ids.root(fresh_uid())
    context = root.child(config.key, traces.attempt) if run else root
    common: dict[str, Value] = {"gog.run": config.run, "gog.stage": config.key, "gog.attempt": traces.attempt}
    attempt = Span("stage", now(), attributes={**common, "gog.kind": config.kind, "gog.ranks": size})
    tree = Tree(attempt, context, run) if rank == 0 else None
    episode_attributes = {**common, "gog.rank": rank}
    tracer = StageTracer(ExportQueue(send, log), context, config.key, traces.share, episode_attributes, tree)
    tracer.install_handlers()
    return tracer


class StageTracer(Tracer):
    """A tracer that also exports the span of the attempt, where it is given one."""

    def __init__(
        self,
        exports: ExportQueue,
        stage: ids.SpanContext,
        key: str,
        share: float,
        common: Mapping[str, Value],
        attempt: Tree | None,
    ) -> None:
        super().__init__(exports, stage, key, share, common)
        self._attempt, self._has_ended = attempt, False
        self._previous: Any = None
        self._outcome: tuple[str, str] | None = None

    def install_handlers(self) -> None:
        """Exports the span however the process ends."""
        atexit.register(self._at_exit)
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._on_sigterm)

    def end(self) -> None:
        self._end("ended", "")

    def _end(self, outcome: str, error: str) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        atexit.unregister(self._at_exit)
        if self._attempt is not None:
            span = self._attempt.root
            span.ended, span.error = now(), error
            span.attributes["gog.outcome"] = outcome
            self._exports.put(self._attempt)
        super().end()

    def _at_exit(self) -> None:
        """The process exits without `end`: the stage was interrupted or has failed."""
        self._end(*(self._outcome or ("failed", type(getattr(sys, "last_value", None) or SystemExit()).__name__)))

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if callable(self._previous):  # the process saves its work and exits by itself
            self._outcome = ("interrupted", "SIGTERM")
            self._previous(number, frame)
            return
        self._end("interrupted", "SIGTERM")
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
