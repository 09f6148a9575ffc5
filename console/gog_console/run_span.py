"""Root span of a run's trace, exported at the end of the run.

`gog run` exports it on one machine, the store job that writes the report on a cluster. Its times come from the object's
status and its id from the object's UID, so exporting it twice gives the same span.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from gog.errors import UserError
from gog.spec import StageTracesSpec
from gog.tracing import ids, otlp
from gog.tracing.record import Span, Tree
from gog_console import resources
from gog_console.report import stages
from gog_operator.api.objects import GoGRun, Object, Stage


def export(thing: Object, now: datetime, warn: Callable[[str], None]) -> None:
    """Exports the span of a run, or of a stage that was started alone, that has ended.

    Args:
        thing: the object.
        now: the current time, used when the object has no completion time.
        warn: called with the reason when the collector refused the span; the run does not fail for that.
    """
    traces = thing.spec.traces if isinstance(thing, GoGRun | Stage) else None
    if traces is None or (
        isinstance(traces, StageTracesSpec) and traces.traceparent
    ):  # the root of that tree is exported by its owner
        return
    ended = resources.utc(thing.status.completion_time) or now
    # Kubernetes times are whole seconds; round up so that the span contains its children.
    if not ended.microsecond:
        ended += timedelta(seconds=1)
    begun = resources.utc(thing.status.start_time) or ended
    outcome, _ = stages.condition(thing)
    run = Span("run", _nanoseconds(begun), _nanoseconds(ended), error="" if outcome == "Complete" else outcome)
    run.attributes = {"gog.run": thing.name, "gog.kind": thing.kind, "gog.outcome": outcome}
    try:
        refused = otlp.sender(traces.endpoint)([Tree(run, ids.root(thing.metadata.uid), None)])
    except UserError as error:
        refused = str(error)
    if refused is not None:
        warn(f"traces: the run's span is lost: {refused}")


def _nanoseconds(moment: datetime) -> int:
    """Nanoseconds since 1970, without rounding."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since // timedelta(microseconds=1)) * 1000
