"""Stages of a run: time, duration, attempts, checkpoint. Pure: Data -> Markup."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gog import wording
from gog_console import formatting, resources
from gog_console.report import bars, overview
from gog_console.report.markup import Markup, tag
from gog_console.report.model import Data, Row, Stage

NOTABLE = ("Interrupted", "Suspended", "Resumed", "Restarted")
"""Reasons of ordinary events that are listed as incidents."""
MOST_INCIDENTS = 20


def section(data: Data) -> Markup:
    """Table of stages and the list of incidents."""
    spans = {stage.key: _span(stage, data.now) for stage in data.stages}
    known = [span for span in spans.values() if span]
    first = min((start for start, _ in known), default=data.now)
    last = max((end for _, end in known), default=data.now)
    head = tag(
        "tr", [tag("th", name) for name in ("Stage", "State", "When", "Time", "Attempts", "Progress", "Checkpoint")]
    )
    rows = [_stage_row(stage, data, spans[stage.key], first, last) for stage in data.stages]
    body = tag("table", tag("thead", head), tag("tbody", rows), class_="stages")
    table = tag("div", body, class_="scroll")
    return tag("section", tag("h2", "Stages"), table, _incidents(data), id="stages")


def _incidents(data: Data) -> Markup | None:
    """Failures, retries and interruptions in order; the last `MOST_INCIDENTS`."""
    incidents = [event for event in data.events if event.get("type") == "Warning" or event.get("reason") in NOTABLE]
    if not incidents:
        return None
    items = [
        tag(
            "li",
            tag("time", _clock(event)),
            " ",
            formatting.unlinked(str(event.get("message", "")))[:400],
            class_="warning" if event.get("type") == "Warning" else None,
        )
        for event in incidents[-MOST_INCIDENTS:]
    ]
    earlier = len(incidents) - len(items)
    more = tag("p", f"{wording.plural(earlier, 'earlier one')} in events.jsonl.", class_="note") if earlier else None
    return tag("div", tag("h3", "Incidents"), tag("ol", items), more, class_="incidents")


def _clock(event: Row) -> str:
    try:
        moment = resources.utc(datetime.fromisoformat(str(event.get("time"))))
    except ValueError:
        moment = None
    return moment.astimezone(UTC).strftime("%H:%M:%S") if moment else formatting.DASH


def _stage_row(
    stage: Stage, data: Data, span: tuple[datetime, datetime] | None, first: datetime, last: datetime
) -> Markup:
    name = tag("td", tag("b", formatting.stage(stage.kind, stage.arm)), _story(stage), class_="name")
    place = (
        bars.stretch(bars.Stretch(*span, overview.STATES.get(stage.condition, "busy")), first, last) if span else None
    )
    progress = f"{stage.step:,} / {stage.total:,}" if stage.step is not None and stage.total else formatting.DASH
    return tag(
        "tr",
        name,
        tag("td", overview.pill(stage.condition)),
        tag("td", place, class_="when"),
        tag("td", formatting.duration(stage.seconds(data.now)), class_="n"),
        tag("td", stage.attempts or formatting.DASH, class_="n again" if stage.attempts > 1 else "n"),
        tag("td", progress, class_="n"),
        tag("td", tag("code", stage.checkpoint) if stage.checkpoint else formatting.DASH),
    )


def _story(stage: Stage) -> Markup | None:
    """Message of a stage that is neither complete nor planned."""
    shown = stage.message and stage.condition not in ("Complete", "Not started")
    return tag("small", formatting.unlinked(stage.message)) if shown else None


def _span(stage: Stage, now: datetime) -> tuple[datetime, datetime] | None:
    seconds = stage.seconds(now)
    if stage.started is None or seconds is None:
        return None
    return stage.started, stage.started + timedelta(seconds=seconds)
