"""`gog run FILE`: the control loop of one run on this machine; shared with `gog resume` and `gog cancel`.

All state is in the run folder, so the process may be killed at any moment and the same command resumes the run. Ctrl-C
stops the running stage in an orderly way, a second Ctrl-C at once; both print how to resume.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from gog_console import (
    backend_options,
    cli,
    estimate,
    loss_names,
    output,
    run_changes,
    run_files,
    run_span,
    served_agent,
)
from gog_console.commands import stage
from gog_console.status import choose
from gog_console.status.base import Display
from gog_operator import hints, local_loop, metrics_page, object_metrics, preflight
from gog_operator.api import manifest, objects
from gog_operator.api.meta import Reason
from gog_operator.api.objects import KINDS, STAGE_KINDS, GoGRun, Object
from gog_operator.cluster import local_check
from gog_operator.cluster.local import LocalCluster
from gog_operator.cluster.lock import RunLock
from gog_operator.plan import tool_check


def main(given: argparse.Namespace) -> int:
    thing = absolute(load(given))
    for sentence in preflight.check(thing, given.file):
        print(f"note: {sentence}")
    folder = Path(given.dir) / thing.name
    served_agent.check(thing, folder)
    with RunLock(folder):
        cluster = open_cluster(folder)
        root = run_changes.adopt(cluster.objects, thing, folder)
        code = operate(cluster, root, given.metrics_port)
    return serve(folder, code)


def serve(folder: Path, code: int) -> int:
    """Serves the agent of a run that is complete, until Ctrl-C. Returns the exit code of the run."""
    root = run_files.find(folder)
    place = served_agent.offered(root, folder) if code == cli.COMPLETE and isinstance(root, GoGRun) else None
    if place is None:
        return code
    with RunLock(place):
        served_agent.forget_servers(place)
        served = operate(open_cluster(place), run_files.find(place))
    return cli.COMPLETE if served == cli.INTERRUPTED else served


def load(given: argparse.Namespace) -> Object:
    """The object of a manifest whose losses exist, and whose back ends take its options. Raises UserError."""
    thing = manifest.load(Path(given.file), given.set)
    loss_names.check(thing, given.file)
    backend_options.check(thing, given.file)
    return thing


PATHS = (("data", "path"), ("model", "base"), ("tools", "cache", "path"))
"""Fields of a spec that may name a local folder or file, besides options of back ends."""


def absolute(thing: Object) -> Object:
    """The object with absolute paths, which stay valid when the run is resumed from another folder."""
    document = objects.document(thing)
    for *parents, last in PATHS:
        here: Any = document["spec"]
        for key in parents:
            here = here.get(key) or {}
        if here.get(last) and "://" not in here[last] and (last == "path" or Path(here[last]).is_dir()):
            here[last] = str(Path(here[last]).absolute())
    for role, endpoint in (document["spec"].get("endpoints") or {}).items():
        if endpoint and endpoint.get("options"):
            endpoint["options"] = backend_options.absolute(role, endpoint)
    return objects.parse(document)


def open_cluster(folder: Path) -> LocalCluster:
    """The cluster of a locked folder, after ending what an earlier gog left behind: its processes and its patience."""
    cluster = LocalCluster(folder)
    run_changes.renew_patience(cluster.objects)
    ended = cluster.processes.end_leftovers()
    if ended:
        print(f"ended {ended} processes that an earlier gog left behind", file=sys.stderr)
    return cluster


def operate(cluster: LocalCluster, root: Object, metrics_port: int | None = None) -> int:
    """Drives the run to its end and prints the result, for as long as there is a reader of the output.

    Returns:
        The exit code.
    """
    with output.tolerant(), metrics_page.exposed(cluster.folder, metrics_port, os.environ) as page:
        if page is not None:
            print(
                f"metrics at http://{metrics_page.HOST}:{page.port}/metrics, of all processes at /targets",
                file=sys.stderr,
            )
        code = control(cluster, root)
        if code != cli.INTERRUPTED:
            metrics_page.linger(page, os.environ)
    return code


def control(cluster: LocalCluster, root: Object) -> int:
    """Drives the run with a display. Returns the exit code."""
    display = choose(cluster, root, estimated(cluster, root))
    cluster.listeners += [display.event, lambda thing, event, _: object_metrics.record_attempt(thing, event)]
    if isinstance(root, GoGRun) and tool_check.is_due(root):
        local_check.preload()
    interruption = Interruption()
    with interruption, display:
        try:
            local_loop.drive(
                cluster, root.key, wait=interruption.wait, interrupted=interruption.requested, on_pass=display.update
            )
        finally:
            if interruption.requested():
                display.stopping()
            cluster.close(hurry=interruption.hurried)
    return conclude(cluster, root, display, interruption.requested())


def estimated(cluster: LocalCluster, root: Object) -> dict[str, float]:
    """Estimated seconds by store key of a new run of the embedded world; empty for others and for a resumed run."""
    if not isinstance(root, GoGRun) or any(cluster.list(kind) for kind in STAGE_KINDS.values()):
        return {}
    return estimate.seconds(root, stage.presets(), estimate.measured_speed())


def conclude(cluster: LocalCluster, root: Object, display: Display, interrupted: bool) -> int:
    """Prints the outcome and writes the report of an ended run. Returns the exit code."""
    now = cluster.get(KINDS[root.kind], root.name) or root
    if now.finished:
        run_span.export(now, datetime.now(UTC), lambda line: print(f"gog: {line}", file=sys.stderr))
        display.finished(now, write_report(cluster.folder))
        return exit_code(now)
    display.paused(now)
    return cli.INTERRUPTED if interrupted else cli.COMPLETE


def exit_code(ended: Object) -> int:
    """The exit code of an ended run. One whose tools a user has to correct is invalid input."""
    failed = ended.condition("Failed")
    if failed is not None and failed.status == "True":
        return cli.INVALID if failed.reason == Reason.TOOLS_FAILED else cli.FAILED
    return cli.COMPLETE


def write_report(folder: Path) -> Path | None:
    """Path of the report; None, with a line on stderr, when it cannot be written, which does not fail the run."""
    try:
        return Path(importlib.import_module("gog_console.report").write(folder))
    except Exception as error:  # noqa: BLE001  the run itself is complete; the report can be written again
        print(f"gog: no report: {error} (`{hints.call('report', folder)}` tries again)", file=sys.stderr)
        return None


class Interruption:
    """SIGINT and SIGTERM as a flag that the control loop polls, rather than an exception at an arbitrary place."""

    def __init__(self) -> None:
        self._count = 0
        self._received = threading.Event()

    def __enter__(self) -> Interruption:
        self._kept = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self._received.set()

    def wait(self, seconds: float) -> None:
        """Sleeps, but returns at once when a signal arrives."""
        self._received.wait(seconds)

    def requested(self) -> bool:
        """Whether a signal was received."""
        return self._count > 0

    def hurried(self) -> bool:
        """Whether a second signal was received."""
        return self._count > 1
