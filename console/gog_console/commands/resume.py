"""`gog resume NAME`: goes on from the last checkpoint, whatever ended the run before."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gog_console import run_folder
from gog_console.commands import run
from gog_operator.cluster.lock import RunLock


def main(given: argparse.Namespace) -> int:
    folder = Path(given.dir) / given.name
    run_folder.find(folder)
    with RunLock(folder):
        cluster = run.open_cluster(folder)
        run_folder.reopen(cluster.objects)
        root = run_folder.find(folder)
        lost = [] if root.finished else run_folder.repeat_lost(cluster.objects)
        if lost:
            print(f"the store holds the last checkpoint of {', '.join(lost)} no more: done again", file=sys.stderr)
        return run.operate(cluster, root, given.metrics_port)
