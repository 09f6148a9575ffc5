"""State of an object in words, and the report's rows of stages. Pure."""

from __future__ import annotations

from gog_console import resources
from gog_console.report.model import Stage
from gog_operator.api import objects
from gog_operator.api.meta import UNKNOWN_REASON
from gog_operator.api.objects import Object, StageStatus

FINAL = ("Complete", "Failed", "Suspended")
"""Conditions that end work on an object, or halt it."""


def condition(thing: Object | None) -> tuple[str, str]:
    """(condition, message): the final condition that is true, else the reason why it is not ready, else Running."""
    if thing is None:
        return "Not started", ""
    for type_ in FINAL:
        final = thing.condition(type_)
        if final is not None and final.status == "True":
            return type_, final.message or ("" if final.reason in (type_, UNKNOWN_REASON) else str(final.reason))
    ready = thing.condition("Ready")
    message = ready.message if ready is not None else ""
    if not _has_begun(thing):
        return "Not started", message
    if ready is None or ready.reason in ("Ready", "NotReady", UNKNOWN_REASON):
        return "Running", message
    return str(ready.reason), message


def row(stage: objects.Stage) -> Stage:
    """The report's row of a stage."""
    state, message = condition(stage)
    progress = stage.status.progress
    known = progress.model_fields_set if progress is not None else set()
    return Stage(
        key=stage.store_key,
        kind=stage.stage,
        name=stage.name,
        condition=state,
        message=message,
        attempts=stage.status.attempt,
        started=resources.utc(stage.status.start_time),
        completed=resources.utc(stage.status.completion_time),
        checkpoint=stage.status.checkpoint,
        image=stage.status.image.id or stage.status.image.reference,
        step=progress.step if progress is not None and "step" in known else None,
        total=progress.total if progress is not None and "total" in known else None,
        spec=resources.spec_of(stage),
    )


def _has_begun(thing: Object) -> bool:
    status = thing.status
    attempted = isinstance(status, StageStatus) and (status.attempt > 0 or status.progress is not None)
    return status.start_time is not None or attempted
