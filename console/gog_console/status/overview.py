"""All runs of a folder, the newest first: one line each.

Of a run only the run object itself is parsed, and the small file in which its stage tells how far it is: hundreds of
runs are looked through in less than a second. Figures read as `kubectl get gog` shows them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rich.text import Text

from gog.errors import UserError
from gog_console import formatting
from gog_console.status import columns, run_files, run_state
from gog_console.status.run_files import RunFolder
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
"""The untitled ones: the reward's sparkline, and a note."""


@dataclass(frozen=True)
class Line:
    """created: of the run, or when a damaged folder was last changed. left: seconds of the current stage to come."""

    name: str
    state: str
    created: datetime
    note: str = ""
    root: Object | None = None
    driver: int | None = None
    figures: Summary = field(default_factory=Summary)
    progress: Progress | None = None
    rewards: str = ""
    attempt: int = 0
    left: float | None = None


class Overview:
    """Looks again and again; what did not change is not read twice."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self._folders: dict[Path, RunFolder] = {}

    def look(self, now: datetime) -> list[Line]:
        found = run_files.all_in(self.parent)
        self._folders = {path: self._folders.get(path) or RunFolder(path) for path in found}
        lines = [line_of(folder, now) for folder in self._folders.values()]
        return sorted(lines, key=lambda line: (formatting.since(line.created, now), line.name))


def line_of(folder: RunFolder, now: datetime) -> Line:
    name = folder.folder.name
    try:
        root, driver = folder.root(), folder.driver()
    except UserError as error:
        where = Path(error.where).name if error.where != str(folder.folder) else ""
        said = formatting.printable(f"{where} {error.what}".strip())
        return Line(name, run_state.DAMAGED, folder.changed(), said)
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
    """Of the current stage."""
    if isinstance(root, Stage):
        return root.store_key
    return root.status.summary.stage if isinstance(root, GoGRun) else ""


def _with_figures(line: Line, folder: RunFolder, key: str, now: datetime) -> Line:
    assert isinstance(line.root, GoGRun | Stage)
    at_work = line.driver is not None and not line.root.finished
    told = folder.told(key) if at_work else folder.progress(key)
    figures = line.root.status.summary
    figures = summary.of_stage(told, figures) if told is not None else figures
    attempt = folder.attempts(key)
    since = folder.began(key, attempt)
    return dataclasses.replace(
        line,
        figures=figures.model_copy(update={"stage": key}),
        progress=told,
        rewards=_rewards(folder, key, at_work),
        attempt=attempt,
        left=run_state.seconds_left(folder.curve(key), told, attempt, since, now) if at_work else None,
    )


def _rewards(folder: RunFolder, key: str, at_work: bool) -> str:
    """Sparkline of the reward, which stays to be seen after the stage that had it: of the same arm if that trained."""
    arm = key.partition("-")[2]
    for each in dict.fromkeys([key, f"grpo-{arm}" if arm else "grpo", "grpo"]):
        if at_work and each == key:
            stretches = folder.curve(each).stretches("reward_mean", 8)
            if stretches:
                return formatting.bars(stretches)
        told = folder.progress(each)
        rewards = formatting.series(told.metrics.get("rewards")) if told is not None else []
        if rewards:
            return formatting.sparkline(rewards)
    return ""


def lines(found: list[Line], now: datetime, width: int | None) -> list[Text]:
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
