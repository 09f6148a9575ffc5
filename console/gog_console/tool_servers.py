"""The tool servers that a manifest starts, for as long as a command needs them, in a temporary folder."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gog import spec as settings
from gog.errors import UserError
from gog_operator import local_loop
from gog_operator.api.objects import GoGRun, ToolServer
from gog_operator.build import children
from gog_operator.cluster.local import LocalCluster
from gog_operator.plan import tool_server

TICK = 0.05
"""Seconds between two looks at servers that start."""


@dataclass(frozen=True)
class Servers:
    """The servers of a run."""

    urls: Mapping[str, str]
    """Base URL by role."""
    failures: Mapping[str, str]
    """Why a server did not start, by role."""


@contextlib.contextmanager
def started(run: GoGRun) -> Iterator[Servers]:
    """Starts the servers that the run would start, and stops them afterwards. Existing ones are passed on.

    Raises:
        UserError: the dataset that they answer from cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="gog-tools-") as folder:
        cluster = LocalCluster(Path(folder))
        try:
            for each in children.tool_servers(run, settings.StoreSpec(uri=f"file://{folder}/store")):
                cluster.create(each)
            _wait(cluster, run)
            found = {each.spec.role: each for each in cluster.list(ToolServer)}
            failures = {role: _why(each) for role, each in found.items() if tool_server.failed(each)}
            yield Servers({role: each.status.url for role, each in found.items() if role not in failures}, failures)
        finally:
            cluster.close()


def _wait(cluster: LocalCluster, run: GoGRun) -> None:
    """Sweeps until every server is ready or has failed."""
    while True:
        local_loop.sweep(cluster, run.key, local_loop.utc_now())
        dataset = cluster.data(run)
        if dataset.state == "failed":
            raise UserError(f"the dataset cannot be made: {dataset.message}", where="spec.data")
        if all(each.holds("Ready") or tool_server.failed(each) for each in cluster.list(ToolServer)):
            return
        time.sleep(TICK)


def _why(failed: ToolServer) -> str:
    progressing = failed.condition("Progressing")
    return progressing.message if progressing is not None else ""
