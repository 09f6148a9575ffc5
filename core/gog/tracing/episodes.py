"""Which episodes are told: a share of them, and those that a tool failed.

The share is chosen by a hash of the episode's name, so that a resumed run goes on with the same ones and two runs of one
manifest can be laid side by side. Episodes with a tool failure are kept besides, some for each step: they are what a
person looks for, and a dead back end would otherwise make every episode one. `gog.kept` says why a span is there,
because figures taken from the second kind would mislead.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from gog.tracing import describe, ids
from gog.tracing.record import Opened, Span, Tree, Value, now

if TYPE_CHECKING:
    from gog.tracing.export_queue import Outlet
    from gog.trajectory import Trajectory

KEPT_FAILURES = 10
"""Episodes that a tool failed, kept besides the share, of each step and rank."""


class NoopEpisode:
    """An episode that nobody wants to hear of."""

    def __enter__(self) -> NoopEpisode:
        return self

    def tell(self, trajectory: Trajectory) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RecordedEpisode(NoopEpisode):
    """An episode whose spans are recorded while this is open."""

    def __init__(self, tracer: Tracer, name: str) -> None:
        self._tracer, self._name = tracer, name
        self._span = Opened(Span("episode", now()))
        self._trajectory: Trajectory | None = None

    def __enter__(self) -> RecordedEpisode:
        self._span.__enter__()
        return self

    def tell(self, trajectory: Trajectory) -> None:
        """What came of it, reward included."""
        self._trajectory = trajectory

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._span.__exit__(kind, error, trace)
        self._tracer.over(self._name, self._span.told, self._trajectory)


class NoopTracer:
    """The tracer of a stage that shall tell nothing, at no cost."""

    _noop = NoopEpisode()

    def episode(self, name: str) -> NoopEpisode:
        """For `with`, around an episode and its reward. name: the trajectory's id."""
        return self._noop

    def end(self) -> None:
        """The stage ended well."""


NOOP = NoopTracer()


class Tracer(NoopTracer):
    """Tells of the episodes of one stage's attempt.

    stage: place of the attempt's span; key: of the stage, part of an episode's identity; share: of episodes, 0 to 1;
    common: attributes of every episode.
    """

    def __init__(
        self, outlet: Outlet, stage: ids.SpanContext, key: str, share: float, common: Mapping[str, Value] | None = None
    ) -> None:
        self._outlet, self._stage, self._key, self._share, self._common = outlet, stage, key, share, common or {}
        self._step, self._failures = 0, 0

    def episode(self, name: str) -> NoopEpisode:
        return RecordedEpisode(self, name)

    def over(self, name: str, told: Span, trajectory: Trajectory | None) -> None:
        """Sends an episode's spans, or lets them go."""
        why = "share" if ids.chosen(f"{self._key}/{name}", self._share) else ""
        if not why and trajectory is not None and _failed(trajectory) and self._one_more(trajectory.step):
            why = "failure"
        if not why:
            return
        if trajectory is not None:
            describe.episode(told, trajectory)
        told.attributes |= {**self._common, describe.OPERATION: "invoke_agent", "gog.kept": why}
        self._outlet.put(Tree(told, self._stage.child(name), self._stage))

    def _one_more(self, step: int) -> bool:
        """Whether one more failed episode of this step is kept."""
        if step != self._step:
            self._step, self._failures = step, 0
        self._failures += 1
        return self._failures <= KEPT_FAILURES

    def end(self) -> None:
        self._outlet.close()


def _failed(trajectory: Trajectory) -> bool:
    """Whether a tool or the judge failed it for good."""
    return bool(trajectory.failures) or (trajectory.reward is not None and trajectory.reward.accuracy is None)
