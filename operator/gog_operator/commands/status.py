"""`gog status [NAME]`: every run in a folder of runs, or one run with its stages and servers.

Reads files only; whether a run is being driven at the moment is told by its lock.
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gog_operator import cli, hints, loop, reconcile, runfolder
from gog_operator.api.objects import Endpoint, GoGRun, Object, Stage
from gog_operator.cluster import lock
from gog_operator.cluster.files import ObjectFiles
from gog_operator.display import words
from gog_operator.plan import sequence


def main(given: argparse.Namespace) -> int:
    console, now = Console(highlight=False, width=None if sys.stdout.isatty() else 160), loop.utc_now()
    if given.name is None:
        folders = runfolder.all_in(Path(given.dir))
        if not folders:
            print(f"no runs in {given.dir}")
            return cli.COMPLETE
        console.print(overview(folders, now))
        return cli.COMPLETE
    folder = Path(given.dir) / given.name
    root = runfolder.find(folder)
    console.print(head(folder, root), markup=False, soft_wrap=True)
    files = ObjectFiles(folder / "objects")
    console.print(stage_table(root, stages_in(files, root), now))
    endpoints = files.list(Endpoint)
    if endpoints:
        console.print(endpoint_table(endpoints))
    return cli.COMPLETE


def head(folder: Path, root: Object) -> str:
    """`world  Training  driven by process 4711`"""
    driver = lock.holder(folder)
    line = f"{root.name}  {words.state(root)}"
    if driver is not None:
        line += f"  driven by process {driver}"
    elif not root.finished:
        line += f"  nobody drives it: `{hints.call('resume', folder)}`"
    return f"{line}\n{words.failure(root)}" if words.failure(root) else line


def stages_in(files: ObjectFiles, root: Object) -> list[Stage]:
    return [root] if isinstance(root, Stage) else reconcile.stages(files)


def overview(folders: list[Path], now: datetime) -> Table:
    table = _table("RUN", "STAGE", "PROGRESS", "STATUS", "DRIVEN BY", "TIME")
    for folder in folders:
        files = ObjectFiles(folder / "objects")
        root = runfolder.root_of(files)
        if root is None:
            continue
        current = _current(stages_in(files, root))
        driver = lock.holder(folder)
        table.add_row(
            root.name,
            current.store_key if current else "",
            words.steps(current.status.progress) if current else "",
            words.state(root),
            str(driver or ""),
            words.duration(words.seconds(root.status, now)) if root.finished or driver else "",
        )
    return table


def _current(stages: list[Stage]) -> Stage | None:
    unfinished = [each for each in stages if not each.holds("Complete")]
    return unfinished[0] if unfinished else stages[-1] if stages else None


def stage_table(root: Object, stages: list[Stage], now: datetime) -> Table:
    table = _table("STAGE", "ATTEMPT", "PROGRESS", "CHECKPOINT", "STATUS", "TIME", "")
    by_key = {each.store_key: each for each in stages}
    planned = [step.key for step in sequence.steps(root)] if isinstance(root, GoGRun) else []
    for key in dict.fromkeys([*planned, *by_key]):
        stage = by_key.get(key)
        if stage is None:
            table.add_row(key, "", "", "", "", "", "")
            continue
        table.add_row(
            key,
            str(stage.status.attempt or ""),
            words.steps(stage.status.progress),
            stage.status.checkpoint,
            words.state(stage),
            words.duration(words.seconds(stage.status, now)) if stage.finished else "",
            words.failure(stage) or words.summary(stage),
        )
    return table


def endpoint_table(endpoints: tuple[Endpoint, ...]) -> Table:
    table = _table("ENDPOINT", "URL", "READY", "RESTARTS")
    for each in endpoints:
        table.add_row(each.spec.role, each.status.url, str(each.holds("Ready")), str(each.status.restarts))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column)
    return table
