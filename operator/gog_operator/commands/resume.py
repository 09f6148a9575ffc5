"""`gog resume NAME`: goes on from the last checkpoint, whatever ended the run before."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gog_operator import runfolder
from gog_operator.cluster.lock import RunLock
from gog_operator.commands import run


def main(given: argparse.Namespace) -> int:
    folder = Path(given.dir) / given.name
    runfolder.find(folder)
    with RunLock(folder):
        cluster = run.open_cluster(folder)
        runfolder.reopen(cluster.objects)
        root = runfolder.find(folder)
        lost = [] if root.finished else runfolder.repeat_lost(cluster.objects)
        if lost:
            print(f"the store holds the last checkpoint of {', '.join(lost)} no more: done again", file=sys.stderr)
        return run.operate(cluster, root, given.metrics_port)
