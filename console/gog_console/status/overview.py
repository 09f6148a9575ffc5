"""All runs of a folder, newest first, one line each.

Hundreds of runs are listed in less than a second, because only the run's own object and the progress file of its
current stage are parsed. Values have the form of `kubectl get gog`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rich.text import Text

from gog.errors import UserError
from gog_console import formatting, run_files
from gog_console.run_files import RunFolder
from gog_console.status import columns, run_state
from gog_operator.api.objects import GoGRun, Object, Progress, Stage, Summary
from gog_operator.plan import summary

COLUMNS = (
    columns.Column("RUN"),
    columns.Column("STATE"),
    columns.Column("STAGE", rank=2),
    columns.Column("PROGRESS", rank=1, right=True),
    columns.Column("REWARD", rank=3, right=True),
    columns.Column("", rank=6),
    columns.Column("TOOL-FAIL", rank=5, right=True),
    columns.Column("ATTEMPT", rank=8, right=True),
    columns.Column("AGE", rank=7, right=True),
    columns.Column("LEFT", rank=4, right=True),
    columns.Column("", rank=1, cut=True),
)
"""Columns without a title: the sparkline of the reward, and a note."""


@dataclass(frozen=True)
class Line:
    """One run."""

    name: str
    """Name of the run folder."""
    state: str
    """State in one word."""
    created: datetime
    """Creation of the run; for a damaged folder its last change."""
    note: str = ""
    """What a user should know or do."""
    root: Object | None = None
    """The run's own object; None when it cannot be read."""
    driver: int | None = None
    """Process that drives the run; None when there is none."""
    figures: Summary = field(default_factory=Summary)
    """Values of the columns, as in the object's status."""
    progress: Progress | None = None
    """Progress of the current stage."""
    rewards: str = ""
    """Sparkline of the reward."""
    attempt: int = 0
    """Attempt of the current stage, from 1; 0 before the first."""
    left: float | None = None
    """Estimated seconds until the current stage is done; None when unknown."""


class Overview:
    """Lists the runs of a folder repeatedly; files that did not change are not read again."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self._folders: dict[Path, RunFolder] = {}

    def read(self, now: datetime) -> list[Line]:
        """The runs at this moment, newest first."""
        found = run_files.all_in(self.parent)
        self._folders = {path: self._folders.get(path) or RunFolder(path) for path in found}
        lines = [line_of(folder, now) for folder in self._folders.values()]
        return sorted(lines, key=lambda line: (formatting.since(line.created, now), line.name))


def line_of(folder: RunFolder, now: datetime) -> Line:
    """The line of one run; a folder that cannot be read is `Damaged`, with the reason as its note."""
    name = folder.folder.name
    try:
        root, driver = folder.root(), folder.driver()
    except UserError as error:
        where = Path(error.where).name if error.where != str(folder.folder) else ""
        reason = formatting.printable(f"{where} {error.what}".strip())
        return Line(name, run_state.DAMAGED, folder.changed(), reason)
    known = Line(
        name,
        run_state.state(root, driver),
        root.metadata.creation_timestamp or folder.changed(),
        run_state.note(root, driver, folder.folder),
        root,
        driver,
    )
    key = _key(root)
    return _with_figures(known, folder, key, now) if key else known


def _key(root: Object) -> str:
    """Store key of the current stage."""
    if isinstance(root, Stage):
        return root.store_key
    return root.status.summary.stage if isinstance(root, GoGRun) else ""


def _with_figures(line: Line, folder: RunFolder, key: str, now: datetime) -> Line:
    assert isinstance(line.root, GoGRun | Stage)
    active = line.driver is not None and not line.root.finished
    progress = folder.current_progress(key) if active else folder.progress(key)
    figures = line.root.status.summary
    figures = summary.of_stage(progress, figures) if progress is not None else figures
    attempt = folder.attempts(key)
    since = folder.began(key, attempt)
    return dataclasses.replace(
        line,
        figures=figures.model_copy(update={"stage": key}),
        progress=progress,
        rewards=_rewards(folder, key, active),
        attempt=attempt,
        left=run_state.seconds_left(folder.curve(key), progress, attempt, since, now) if active else None,
    )


def _rewards(folder: RunFolder, key: str, active: bool) -> str:
    """Sparkline of the reward, also after the GRPO stage is done; of the same arm if that arm trained."""
    arm = key.partition("-")[2]
    for each in dict.fromkeys([key, f"grpo-{arm}" if arm else "grpo", "grpo"]):
        if active and each == key:
            stretches = folder.curve(each).stretches("reward_mean", 8)
            if stretches:
                return formatting.bars(stretches)
        progress = folder.progress(each)
        rewards = formatting.series(progress.metrics.get("rewards")) if progress is not None else []
        if rewards:
            return formatting.sparkline(rewards)
    return ""


def lines(found: list[Line], now: datetime, width: int | None) -> list[Text]:
    """The table. width: columns of the terminal; None for other outputs, where lines are not cut."""
    return columns.lines(COLUMNS, [_row(line, now) for line in found], width)


def _row(line: Line, now: datetime) -> list[columns.Cell]:
    return [
        Text(formatting.printable(line.name), style="bold"),
        Text(line.state, style=run_state.colour(line.root, line.state)),
        line.figures.stage,
        line.figures.progress,
        line.figures.reward,
        line.rewards,
        line.figures.tool_failures,
        str(line.attempt or ""),
        formatting.age(formatting.since(line.created, now)),
        f"~{formatting.estimate(line.left)}" if line.left is not None else "",
        Text(line.note, style="dim"),
    ]
