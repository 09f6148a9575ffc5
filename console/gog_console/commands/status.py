"""`gog status [NAME] [-f]`: all runs of a folder, or one run with its stages, metrics, events and servers.

It only reads files, so it may run beside the process that drives a run. With -f a terminal is redrawn; other outputs get
a line when a state changes or another tenth of the steps is done. One run is followed until it ends or loses its driver,
with the exit code of `gog run`; all runs are followed until Ctrl-C.
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

from gog_console import cli, output, run_files
from gog_console.run_files import RunFolder
from gog_console.status import overview, phrases, plain, run_page, run_state
from gog_operator import local_loop
from gog_operator.api.objects import Object

UPDATE_SECONDS = 1.0
"""Seconds between two updates."""


def main(given: argparse.Namespace) -> int:
    view: View = AllRuns(Path(given.dir)) if given.name is None else OneRun(Path(given.dir) / given.name)
    if given.json:
        return print_document(view, local_loop.utc_now())
    console = Console(highlight=False)
    drawn = sys.stdout.isatty() and not console.is_dumb_terminal
    if not given.follow:
        now = local_loop.utc_now()
        view.update(now)
        show(view.lines(now, console.width if drawn else None), console if drawn else None)
        return cli.COMPLETE
    return follow_drawn(view, console) if drawn else follow_plain(view)


class AllRuns:
    """View of all runs, without a NAME."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self.overview = overview.Overview(parent)
        self.found: list[overview.Line] = []

    def update(self, now: datetime) -> None:
        """Reads the run folders again."""
        self.found = self.overview.read(now)

    def lines(self, now: datetime, width: int | None) -> list[Text]:
        return overview.lines(self.found, now, width) if self.found else [Text(f"no runs in {self.parent}")]

    def news(self, changes: plain.Changes, now: datetime) -> Iterator[str]:
        for line in self.found:
            if changes.has_changed(f"{line.name}/{line.figures.stage}", line.state, line.progress):
                values = line.figures
                parts = (line.name, line.state, values.stage, values.progress, values.reward, line.rewards, line.note)
                yield "  ".join(part for part in parts if part)

    def outcome(self) -> int | None:
        """None: runs may be added at any time."""
        return None


class OneRun:
    """View of one run. Raises UserError when there is no such run."""

    def __init__(self, path: Path) -> None:
        with run_files.readable(path):
            run_files.find(path)
        self.folder = RunFolder(path)
        self.page: run_page.RunPage | None = None

    def update(self, now: datetime) -> None:
        """Reads the run folder again."""
        self.page = run_page.read(self.folder, now)

    @property
    def current(self) -> run_page.RunPage:
        """What the last update read."""
        assert self.page is not None, "update() comes first"
        return self.page

    def lines(self, now: datetime, width: int | None) -> list[Text]:
        return run_page.lines(self.current, now, width)

    def news(self, changes: plain.Changes, now: datetime) -> Iterator[str]:
        state = run_state.state(self.current.root, self.current.driver)
        if changes.has_changed(self.current.name, state, None):
            yield f"{self.current.name}  {state}"
        for line in self.current.stages:
            stage = line.stage
            if stage is None:
                continue
            state = run_state.state(stage, self.current.driver)
            if changes.has_changed(f"{line.key}/{max(stage.status.attempt, 1)}", state, line.progress):
                result = phrases.failure(stage) or phrases.summary(stage)
                parts = (f"{phrases.mark(stage)} {line.key}", state, phrases.steps(line.progress), result)
                yield "  ".join(part for part in parts if part)

    def outcome(self) -> int | None:
        return outcome(self.current.root, self.current.driver)


View = AllRuns | OneRun


def outcome(root: Object, driver: int | None) -> int | None:
    """Exit code with which `gog run` ended; None while the run is driven."""
    if root.finished:
        return cli.COMPLETE if root.holds("Complete") else cli.FAILED
    if driver is not None:
        return None
    return cli.COMPLETE if root.holds("Suspended") else cli.INTERRUPTED


def print_document(view: View, now: datetime) -> int:
    """Prints the view as JSON."""
    from gog_console.status import document  # imports the report, and numpy with it

    view.update(now)
    made = document.of_runs(view.found, now) if isinstance(view, AllRuns) else document.of_run(view.current, now)
    print(json.dumps(made, ensure_ascii=not output.is_unicode(sys.stdout), allow_nan=False, indent=1))
    return cli.COMPLETE


def show(lines: list[Text], console: Console | None) -> None:
    """Prints lines with colours on a terminal, else as plain text."""
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
            view.update(now)
            live.update(Group(*view.lines(now, console.width)), refresh=True)
            code = view.outcome()
            if code is not None:
                return code
            wait(UPDATE_SECONDS)


def follow_plain(
    view: View, wait: Callable[[float], None] = time.sleep, clock: Callable[[], datetime] = local_loop.utc_now
) -> int:
    changes = plain.Changes()
    while True:
        now = clock()
        view.update(now)
        for line in view.news(changes, now):
            print(line, flush=True)
        code = view.outcome()
        if code is not None:
            return code
        wait(UPDATE_SECONDS)
