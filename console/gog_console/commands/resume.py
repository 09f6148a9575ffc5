"""`gog resume NAME`: continues a run from its last checkpoint, whatever ended it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gog_console import run_changes, run_files, served_agent
from gog_console.commands import run
from gog_operator.api.objects import ToolServer
from gog_operator.cluster.lock import RunLock


def main(given: argparse.Namespace) -> int:
    folder = Path(given.dir) / given.name
    run_files.find(folder)
    with RunLock(folder):
        cluster = run.open_cluster(folder)
        if not run_changes.reopen(cluster.objects) and isinstance(run_files.find(folder), ToolServer):
            served_agent.forget_servers(folder)
        root = run_files.find(folder)
        lost = [] if root.finished else run_changes.repeat_lost(cluster.objects)
        if lost:
            print(
                f"the last checkpoint of {', '.join(lost)} is no longer in the store; the stage runs again",
                file=sys.stderr,
            )
        code = run.operate(cluster, root, given.metrics_port)
    return run.serve(folder, code)
