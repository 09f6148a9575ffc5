"""The span of a whole run, told by who sees its end: `gog run`, and on a cluster the mover that writes the report.

Its times are those of the object's status, and its id is the object's: whoever tells it again tells the same span.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from gog.errors import UserError
from gog.tracing import ids, otlp
from gog.tracing.record import Span, Tree
from gog_console.report import objects


def tell_end(thing: objects.Object, now: datetime, say: Callable[[str], None]) -> None:
    """Tells of a run, or a stage that stands alone, that is over. thing: its document. say: tells the user why a
    collector did not take it, which fails nothing."""
    spec, metadata, status = (objects.table(thing.get(part)) for part in ("spec", "metadata", "status"))
    traces = objects.table(spec.get("traces"))
    if not traces or traces.get("traceparent"):  # told to be part of a tree of somebody else's
        return
    ended = objects.time(status.get("completionTime")) or now
    # A cluster's times are whole seconds; what happened inside the last one is before its end.
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
        say(f"traces: the run's span is lost: {refused}")


def _nanoseconds(moment: datetime) -> int:
    """Since 1970, exactly."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since // timedelta(microseconds=1)) * 1000
