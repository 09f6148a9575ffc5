"""Root span of a run's trace, exported at the end of the run.

`gog run` exports it on one machine, the store job that writes the report on a cluster. Its times come from the object's
status and its id from the object's UID, so exporting it twice gives the same span.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from gog.errors import UserError
from gog.tracing import ids, otlp
from gog.tracing.record import Span, Tree
from gog_console.report import objects


def export(thing: objects.Object, now: datetime, warn: Callable[[str], None]) -> None:
    """Exports the span of a run, or of a stage that was started alone, that has ended.

    Args:
        thing: document of the object.
        now: the current time, used when the object has no completion time.
        warn: called with the reason when the collector refused the span; the run does not fail for that.
    """
    spec, metadata, status = (objects.table(thing.get(part)) for part in ("spec", "metadata", "status"))
    traces = objects.table(spec.get("traces"))
    if not traces or traces.get("traceparent"):  # the root of that tree is exported by its owner
        return
    ended = objects.time(status.get("completionTime")) or now
    # Kubernetes times are whole seconds; round up so that the span contains its children.
    if not ended.microsecond:
        ended += timedelta(seconds=1)
    begun = objects.time(status.get("startTime")) or ended
    name, (outcome, _) = objects.name_of(thing), objects.condition(thing)
    run = Span("run", _nanoseconds(begun), _nanoseconds(ended), error="" if outcome == "Complete" else outcome)
    run.attributes = {"gog.run": name, "gog.kind": str(thing.get("kind")), "gog.outcome": outcome}
    try:
        refused = otlp.sender(str(traces["endpoint"]))([Tree(run, ids.root(str(metadata.get("uid"))), None)])
    except UserError as error:
        refused = str(error)
    if refused is not None:
        warn(f"traces: the run's span is lost: {refused}")


def _nanoseconds(moment: datetime) -> int:
    """Nanoseconds since 1970, without rounding."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since // timedelta(microseconds=1)) * 1000
