"""`gog status [NAME] [-f]`: every run in a folder of runs, or one run with its stages, figures, events and servers.

Reads files only, so it may be called beside the process that drives a run, by anybody who may read them. With -f a
terminal is redrawn, and anything else gets a line when a stage or a run has come a tenth further or stands otherwise:
one run is followed until it has ended or nobody drives it, with the exit code of `gog run`; all runs until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from gog_console import cli, run_folder
from gog_console.status import overview, phrases, plain, run_files, run_page, run_state
from gog_console.status.run_files import RunFolder
from gog_operator import local_loop
from gog_operator.api.objects import Object

LOOK_SECONDS = 1.0
"""Between two looks."""


def main(given: argparse.Namespace) -> int:
    view: View = AllRuns(Path(given.dir)) if given.name is None else OneRun(Path(given.dir) / given.name)
    if given.json:
        return print_document(view, local_loop.utc_now())
    console = Console(highlight=False)
    drawn = sys.stdout.isatty() and not console.is_dumb_terminal
    if not given.follow:
        now = local_loop.utc_now()
        view.look(now)
        show(view.lines(now, console.width if drawn else None), console if drawn else None)
        return cli.COMPLETE
    return follow_drawn(view, console) if drawn else follow_told(view)


class AllRuns:
    """What is shown without a NAME."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self.overview = overview.Overview(parent)
        self.found: list[overview.Line] = []

    def look(self, now: datetime) -> None:
        self.found = self.overview.look(now)

    def lines(self, now: datetime, width: int | None) -> list[Text]:
        return overview.lines(self.found, now, width) if self.found else [Text(f"no runs in {self.parent}")]

    def news(self, changes: plain.Changes, now: datetime) -> Iterator[str]:
        for line in self.found:
            if changes.are_news(f"{line.name}/{line.figures.stage}", line.state, line.progress):
                told = line.figures
                parts = (line.name, line.state, told.stage, told.progress, told.reward, line.rewards, line.note)
                yield "  ".join(part for part in parts if part)

    def outcome(self) -> int | None:
        """Runs may always be added."""
        return None


class OneRun:
    """What is shown with a NAME. Raises UserError when there is no such run."""

    def __init__(self, path: Path) -> None:
        with run_files.said(path):
            run_folder.find(path)
        self.folder = RunFolder(path)
        self.board: run_page.Board | None = None

    def look(self, now: datetime) -> None:
        self.board = run_page.look(self.folder, now)

    @property
    def seen(self) -> run_page.Board:
        assert self.board is not None, "looked first"
        return self.board

    def lines(self, now: datetime, width: int | None) -> list[Text]:
        return run_page.lines(self.seen, now, width)

    def news(self, changes: plain.Changes, now: datetime) -> Iterator[str]:
        state = run_state.state(self.seen.root, self.seen.driver)
        if changes.are_news(self.seen.name, state, None):
            yield f"{self.seen.name}  {state}"
        for line in self.seen.stages:
            stage = line.stage
            if stage is None:
                continue
            state = run_state.state(stage, self.seen.driver)
            if changes.are_news(f"{line.key}/{max(stage.status.attempt, 1)}", state, line.progress):
                said = phrases.failure(stage) or phrases.summary(stage)
                parts = (f"{phrases.mark(stage)} {line.key}", state, phrases.steps(line.progress), said)
                yield "  ".join(part for part in parts if part)

    def outcome(self) -> int | None:
        return outcome(self.seen.root, self.seen.driver)


View = AllRuns | OneRun


def outcome(root: Object, driver: int | None) -> int | None:
    """The exit code that `gog run` has ended with, None while it goes on."""
    if root.finished:
        return cli.COMPLETE if root.holds("Complete") else cli.FAILED
    if driver is not None:
        return None
    return cli.COMPLETE if root.holds("Suspended") else cli.INTERRUPTED


def print_document(view: View, now: datetime) -> int:
    from gog_console.status import document  # which loads the report's own modules, and numpy with them

    view.look(now)
    made = document.of_runs(view.found, now) if isinstance(view, AllRuns) else document.of_run(view.seen, now)
    print(json.dumps(made, ensure_ascii=False, allow_nan=False, indent=1))
    return cli.COMPLETE


def show(lines: list[Text], console: Console | None) -> None:
    """On a terminal with its colours, else as text."""
    for line in lines:
        if console is not None:
            console.print(line)
        else:
            print(line.plain)


def follow_drawn(
    view: View,
    console: Console,
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], datetime] = local_loop.utc_now,
) -> int:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            now = clock()
            view.look(now)
            live.update(Group(*view.lines(now, console.width)), refresh=True)
            code = view.outcome()
            if code is not None:
                return code
            wait(LOOK_SECONDS)


def follow_told(
    view: View, wait: Callable[[float], None] = time.sleep, clock: Callable[[], datetime] = local_loop.utc_now
) -> int:
    changes = plain.Changes()
    while True:
        now = clock()
        view.look(now)
        for line in view.news(changes, now):
            print(line, flush=True)
        code = view.outcome()
        if code is not None:
            return code
        wait(LOOK_SECONDS)
