"""Which episodes are exported: a fraction of them, and those in which a tool or the judge failed.

The fraction is chosen by a hash of the episode's name, so that a resumed run continues with the same ones, and two runs
of one manifest can be compared. Episodes with a failure are exported too, because engineers look for them; their number
per step is bounded, because all episodes fail while a back end is down. The attribute `gog.kept` gives the reason for
the export, because statistics over episodes with failures would be biased.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from gog.tracing import describe, ids
from gog.tracing.record import OpenSpan, Span, Tree, Value, now

if TYPE_CHECKING:
    from gog.tracing.export_queue import ExportQueue
    from gog.trajectory import Trajectory

KEPT_FAILURES = 10
"""Failed episodes that are kept besides the fraction, for each step and rank."""


class NoopEpisode:
    """An episode whose spans are not recorded."""

    def __enter__(self) -> NoopEpisode:
        return self

    def record(self, trajectory: Trajectory) -> None:
        """Attaches the finished trajectory, reward included."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RecordedEpisode(NoopEpisode):
    """An episode whose spans are recorded inside `with`."""

    def __init__(self, tracer: Tracer, name: str) -> None:
        self._tracer, self._name = tracer, name
        self._open = OpenSpan(Span("episode", now()))
        self._trajectory: Trajectory | None = None

    def __enter__(self) -> RecordedEpisode:
        self._open.__enter__()
        return self

    def record(self, trajectory: Trajectory) -> None:
        self._trajectory = trajectory

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
        self._tracer.finish(self._name, self._open.span, self._trajectory)


class NoopTracer:
    """The tracer of a stage without traces."""

    _noop = NoopEpisode()

    def episode(self, name: str) -> NoopEpisode:
        """For `with`, around an episode and its reward. name: id of the trajectory."""
        return self._noop

    def end(self) -> None:
        """The stage ended well."""


NOOP = NoopTracer()


class Tracer(NoopTracer):
    """Exports episodes of one attempt of a stage."""

    def __init__(
        self,
        exports: ExportQueue,
        stage: ids.SpanContext,
        key: str,
        share: float,
        common: Mapping[str, Value] | None = None,
    ) -> None:
        """
        Args:
            exports: where finished trees go.
            stage: context of the attempt's span.
            key: key of the stage, part of an episode's identity.
            share: fraction of episodes that are exported, 0 to 1.
            common: attributes of every episode.
        """
        self._exports, self._stage, self._key, self._share, self._common = exports, stage, key, share, common or {}
        self._step, self._failures = 0, 0

    def episode(self, name: str) -> NoopEpisode:
        return RecordedEpisode(self, name)

    def finish(self, name: str, span: Span, trajectory: Trajectory | None) -> None:
        """Exports an episode's spans, or drops them."""
        why = "share" if ids.is_sampled(f"{self._key}/{name}", self._share) else ""
        if not why and trajectory is not None and _has_failed(trajectory) and self._keeps_one_more(trajectory.step):
            why = "failure"
        if not why:
            return
        if trajectory is not None:
            describe.episode(span, trajectory)
        span.attributes |= {**self._common, describe.OPERATION: "invoke_agent", "gog.kept": why}
        self._exports.put(Tree(span, self._stage.child(name), self._stage))

    def _keeps_one_more(self, step: int) -> bool:
        """Whether another failed episode of this step is kept."""
        if step != self._step:
            self._step, self._failures = step, 0
        self._failures += 1
        return self._failures <= KEPT_FAILURES

    def end(self) -> None:
        self._exports.close()


def _has_failed(trajectory: Trajectory) -> bool:
    """Whether a tool or the judge failed in it after all retries."""
    return bool(trajectory.failures) or (trajectory.reward is not None and trajectory.reward.accuracy is None)
