"""`gog resume NAME`: goes on from the last checkpoint, whatever ended the run before."""

from __future__ import annotations

import argparse
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
        return run.operate(cluster, runfolder.find(folder))
