"""Status of one run: stages, their metrics, the last events, servers, and the commands that are useful next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.text import Text

from gog import catalog
from gog.calls.spend import Spend
from gog_console import formatting
from gog_console.run_files import RunFolder
from gog_console.status import columns, phrases, run_state, stage_metrics
from gog_console.status.stage_metrics import Figure
from gog_operator.api import sequence
from gog_operator.api.objects import GoGRun, Object, Progress, Stage, ToolServer

EVENTS = 5
BAR = 16
STAGES = (
    columns.Column("", rank=7),
    columns.Column("STAGE"),
    columns.Column("STATE"),
    columns.Column("ATTEMPT", rank=5, right=True),
    columns.Column("", rank=6),
    columns.Column("PROGRESS", rank=1, right=True),
    columns.Column("CHECKPOINT", rank=8),
    columns.Column("TIME", rank=3, right=True),
    columns.Column("LEFT", rank=2, right=True),
    columns.Column("", rank=4, cut=True),
)
"""Columns without a title: a mark, a progress bar, and a note."""
FIGURES = (
    columns.Column("FIGURE"),
    columns.Column("", cut=True),
    columns.Column("FIRST", rank=2, right=True),
    columns.Column("LAST", right=True),
    columns.Column("", rank=1),
)
EVENT = (columns.Column("EVENT", right=True), columns.Column(""), columns.Column("", cut=True))
ENDPOINTS = (
    columns.Column("ENDPOINT"),
    columns.Column("READY"),
    columns.Column("RESTARTS", rank=1, right=True),
    columns.Column("ADDRESS", rank=2, cut=True),
)
NEXT = (columns.Column("NEXT"), columns.Column("", rank=1, cut=True))


@dataclass(frozen=True)
class StageLine:
    """One stage of a run."""

    key: str
    """Key of its checkpoints in the store: `grpo`, `grpo-no-gaze`."""
    stage: Stage | None = None
    """Its object; None while it is only planned."""
    progress: Progress | None = None
    """Its newest progress report."""
    figures: tuple[Figure, ...] = ()
    """Its key metrics."""
    left: float | None = None
    """Estimated seconds until it is done; None when unknown."""


@dataclass(frozen=True)
class RunPage:
    """Everything that the page of one run shows, read at one moment."""

    name: str
    """Name of the run folder."""
    root: Object
    """The run, or the stage that was started alone."""
    driver: int | None
    """Process that drives the run; None when there is none."""
    stages: tuple[StageLine, ...]
    """Planned and existing stages, in their order."""
    tool_servers: tuple[ToolServer, ...]
    """Servers; empty without a driver, because servers end with their driver."""
    problems: tuple[str, ...]
    """One sentence for each object or value that cannot be read."""
    events: tuple[dict[str, Any], ...]
    """The last events, oldest first."""
    next: tuple[tuple[str, str], ...]
    """Useful commands: (command, effect)."""
    spend: Spend
    """What tools and the judge cost so far."""


def read(folder: RunFolder, now: datetime) -> RunPage:
    """Reads a run folder.

    Raises:
        UserError: the run's own object cannot be read.
    """
    root, driver = folder.root(), folder.driver()
    stages, torn = folder.stages()
    servers, torn_servers = folder.tool_servers()
    by_key = {stage.store_key: stage for stage in stages}
    planned = [step.key for step in sequence.steps(root)] if isinstance(root, GoGRun) else []
    lines = [_line(folder, key, by_key.get(key), driver, now) for key in dict.fromkeys([*planned, *by_key])]
    return RunPage(
        folder.folder.name,
        root,
        driver,
        tuple(lines),
        tuple(servers) if driver is not None else (),
        (*torn, *torn_servers, *folder.ignored()),
        tuple(folder.events(EVENTS)),
        tuple(run_state.next_step(root, driver, stages, folder.folder)),
        folder.spend(),
    )


def _line(folder: RunFolder, key: str, stage: Stage | None, driver: int | None, now: datetime) -> StageLine:
    if stage is None:
        return StageLine(key)
    progress = folder.current_progress(key) or stage.status.progress
    curve, left = folder.curve(key), None
    if driver is not None and not stage.finished:
        left = run_state.seconds_left(curve, progress, stage.status.attempt, stage.status.attempt_time, now)
    return StageLine(key, stage, progress, tuple(stage_metrics.of_stage(stage.stage, progress, curve)), left)


def lines(board: RunPage, now: datetime, width: int | None) -> list[Text]:
    """The page as lines of text.

    Args:
        board: what was read.
        now: the current time.
        width: columns of the terminal; None for other outputs, where lines are not cut and bars are left out.
    """
    parts: list[tuple[Sequence[columns.Column], list[list[columns.Cell]]]] = [
        (STAGES, [_stage(line, board, now, bar=width is not None) for line in board.stages]),
        (FIGURES, [_figure(line, each) for line in board.stages for each in line.figures]),
        (EVENT, [_event(event, now) for event in board.events]),
        (ENDPOINTS, [_tool_server(each) for each in board.tool_servers]),
        (NEXT, [list(each) for each in board.next]),
    ]
    made = _head(board, now, width)
    for heads, rows in parts:
        if rows:
            made += [Text(""), *columns.lines(heads, rows, width)]
    return made


def _head(board: RunPage, now: datetime, width: int | None) -> list[Text]:
    """`world  Training  driven by process 4711  12m old`, the failure or what blocks it, and damaged objects."""
    shown = run_state.state(board.root, board.driver)
    first = Text(formatting.printable(board.name), style="bold")
    first.append(f"  {shown}", style=run_state.colour(board.root, shown))
    if board.driver is not None:
        first.append(f"  driven by process {board.driver}")
    if board.root.metadata.creation_timestamp is not None:
        first.append(f"  {formatting.age(formatting.since(board.root.metadata.creation_timestamp, now))} old")
    reasons = phrases.failure(board.root), run_state.waits_for(board.root)
    more = [Text(formatting.printable(each), style=style) for each, style in zip(reasons, ("red", "yellow")) if each][
        :1
    ]
    if board.spend.total().usd:
        more.append(Text(formatting.printable(f"spent {formatting.spent(board.spend)}")))
    more += [Text(formatting.printable(f"! {problem}"), style="red") for problem in board.problems]
    return [columns.fitting(line, width) for line in (first, *more)]


def _stage(line: StageLine, board: RunPage, now: datetime, *, bar: bool) -> list[columns.Cell]:
    stage = line.stage
    if stage is None:
        return ["", Text(line.key, style="dim"), *[""] * (len(STAGES) - 2)]
    shown = run_state.state(stage, board.driver)
    style = run_state.colour(stage, shown)
    return [
        Text(phrases.mark(stage), style=style),
        line.key,
        Text(shown, style=style),
        str(stage.status.attempt or ""),
        _bar(line.progress) if bar and not stage.finished else "",
        phrases.steps(line.progress),
        stage.status.checkpoint,
        formatting.clock(phrases.seconds(stage.status, now)) if stage.finished or board.driver is not None else "",
        f"~{formatting.estimate(line.left)}" if line.left is not None else "",
        _note(line, stage),
    ]


def _note(line: StageLine, stage: Stage) -> Text:
    """Why it failed or what blocks it; else its results, unless they have lines of their own."""
    if phrases.failure(stage):
        return Text(formatting.printable(phrases.failure(stage)), style="red")
    if run_state.waits_for(stage):
        return Text(formatting.printable(run_state.waits_for(stage)), style="yellow")
    return Text("" if line.figures else phrases.summary(stage))


def _bar(progress: Progress | None) -> Text:
    if progress is None or not progress.total:
        return Text("")
    full = min(BAR * progress.step // progress.total, BAR)
    return Text("━" * full, style="cyan") + Text("─" * (BAR - full), style="bright_black")


def _figure(line: StageLine, figure: Figure) -> list[columns.Cell]:
    first = line.figures[0] is figure
    return [line.key if first else "", figure.name, figure.first, figure.last, figure.course]


def _event(event: dict[str, Any], now: datetime) -> list[columns.Cell]:
    ago = formatting.age(formatting.since(datetime.fromisoformat(event["time"]), now))
    mark = Text("!", style="yellow") if event["type"] == "Warning" else Text("·")
    return [ago, mark, formatting.printable(str(event["message"]))]


def _tool_server(tool_server: ToolServer) -> list[columns.Cell]:
    ready = tool_server.holds("Ready")
    role = catalog.SERVER_BY_NAME[tool_server.spec.role].title
    state = Text(str(ready), style="green" if ready else "yellow")
    return [role, state, str(tool_server.status.restarts), formatting.printable(tool_server.status.url)]
