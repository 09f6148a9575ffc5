"""`gog cancel NAME`: ends a run, through the process that drives it, or in this process if there is none."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gog.errors import UserError
from gog_console import cli, run_changes, run_files
from gog_console.commands import run
from gog_operator import hints, local_loop
from gog_operator.api.meta import CANCEL
from gog_operator.api.objects import Object
from gog_operator.cluster import lock
from gog_operator.cluster.files import ObjectFiles
from gog_operator.cluster.lock import RunLock


def main(given: argparse.Namespace) -> int:
    folder = Path(given.dir) / given.name
    root = run_files.find(folder)
    if root.finished:
        print(f"{root.name} is {'complete' if root.holds('Complete') else 'failed'} already")
        return cli.COMPLETE
    ObjectFiles(folder / "objects").patch(root.kind, root.name, spec={}, annotations={CANCEL: "yes"})
    driver = lock.holder(folder)
    if driver is not None:
        print(f"{root.name} is being cancelled by process {driver}, which drives it")
        return cli.COMPLETE
    return _end(folder, root)


def _end(folder: Path, root: Object) -> int:
    """Drives a run without a driver to its end."""
    with RunLock(folder):
        cluster = run.open_cluster(folder)
        run_changes.forget_servers(cluster.objects)
        interruption = run.Interruption()
        with interruption:
            local_loop.drive(cluster, root.key, wait=interruption.wait, interrupted=interruption.requested)
            cluster.close()
    if not run_files.find(folder).finished:
        raise UserError(f"{root.name} did not end", remedy=f"`{hints.call('cancel', folder)}` again")
    print(f"{root.name} is cancelled; `{hints.call('resume', folder)}` resumes it", file=sys.stdout)
    return cli.COMPLETE
