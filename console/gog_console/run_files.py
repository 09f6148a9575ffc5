"""Read-only access to a run folder that other processes write.

Displays read it every second, so an object is parsed only when its file has changed. The progress of a stage with a
metric log is taken from the log, which is read incrementally, rather than from progress.json, which is rewritten at
every step. A damaged file is reported; it does not hide the rest of the folder.

A newer gog may have written the folder. Unknown fields are ignored, states that this version does not know are shown as
they are, and each value that it cannot read is reported. What drives or changes a run reads the files strictly instead.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gog import progress, store
from gog.calls import spend_log
from gog.calls.spend import Spend
from gog.errors import UserError
from gog_console.status.metric_log import Curve
from gog_operator.api import lenient, objects
from gog_operator.api.meta import API_VERSION
from gog_operator.api.objects import KINDS, STAGE_KINDS, Object, Progress, Stage, ToolServer
from gog_operator.cluster import lock
from gog_operator.cluster.files import ObjectFiles
from gog_operator.cluster.interface import Thing

TAIL = 64 * 1024
"""Bytes at the end of events.jsonl in which the last events are searched."""
SIGNS = ("objects", "events.jsonl", lock.FILE)
"""A folder with one of these belongs to a run."""


def find(folder: Path) -> Object:
    """The object that a run folder belongs to.

    Raises:
        UserError: there is no such run; names those that exist.
    """
    root = root_of(ObjectFiles(folder / "objects", lambda body: _parsed(body)[0]))
    if root is None:
        known = ", ".join(each.name for each in sorted(all_in(folder.parent)) if (each / "objects").is_dir()) or "none"
        raise UserError(f"no run {folder.name!r}", where=str(folder.parent), remedy=f"runs there: {known}")
    return root


def root_of(files: ObjectFiles) -> Object | None:
    """The object without an owner: a run, or a stage or ToolServer that was started alone."""
    things = (each for kind in KINDS.values() for each in files.list(kind))
    return next((each for each in things if not each.metadata.owner_references), None)


class RunFolder:
    """One run folder, read repeatedly."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = ObjectFiles(folder / "objects", self._parse)
        self._ignored: dict[tuple[str, str], tuple[str, ...]] = {}
        self._curves: dict[str, Curve] = {}
        self._progress: dict[str, tuple[tuple[int, int, int], Progress | None]] = {}

    def _parse(self, body: Any) -> Object:
        thing, ignored = _parsed(body)
        self._ignored[thing.key] = ignored
        return thing

    def ignored(self) -> list[str]:
        """One sentence for each value that was ignored in the objects read so far."""
        return [f"{kind} {name} {each}" for (kind, name), found in self._ignored.items() for each in found]

    def root(self) -> Object:
        """The run's own object. Raises UserError when it is missing or cannot be read."""
        with readable(self.folder):
            found = root_of(self.files)
        if found is None:
            raise UserError("no objects", where=str(self.folder), remedy="remove the folder to start afresh")
        return found

    def driver(self) -> int | None:
        """Process that drives the run; None when there is none. Raises UserError when the lock cannot be read."""
        with readable(self.folder):
            return lock.holder(self.folder)

    def stages(self) -> tuple[list[Stage], list[str]]:
        """Stages in their order, and one sentence for each object that cannot be read."""
        read = [self._all(kind) for kind in STAGE_KINDS.values()]
        return [each for things, _ in read for each in things], [each for _, problems in read for each in problems]

    def tool_servers(self) -> tuple[list[ToolServer], list[str]]:
        """ToolServers, and one sentence for each object that cannot be read."""
        return self._all(ToolServer)

    def spend(self) -> Spend:
        """What tools and the judge cost so far; nothing where the run's store is elsewhere or cannot be read."""
        try:
            return spend_log.read(store.Store(self.folder / "store"))
        except (OSError, UserError):
            return Spend()

    def _all(self, kind: type[Thing]) -> tuple[list[Thing], list[str]]:
        things, problems = [], []
        for path in sorted(self.files.folder.glob(f"{kind.__name__.lower()}.*.yaml")):
            try:
                with readable(path):
                    thing = self.files.get(kind, path.name.split(".", 1)[1].removesuffix(".yaml"))
            except UserError as error:
                problems.append(f"{path.name} {error.what}")
            else:
                things += [thing] if thing is not None else []
        return things, problems

    def curve(self, key: str) -> Curve:
        """Metric log of a stage, brought up to date."""
        curve = self._curves.setdefault(key, Curve(self.folder / "work" / key / "metrics.jsonl"))
        curve.update()
        return curve

    def progress(self, key: str) -> Progress | None:
        """The stage's last progress report; None when there is none."""
        path = self.folder / "work" / key / progress.FILE
        try:
            seen = path.stat()
        except OSError:
            return None
        stamp = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        if key not in self._progress or self._progress[key][0] != stamp:
            self._progress[key] = stamp, _read_progress(path.parent)
        return self._progress[key][1]

    def current_progress(self, key: str) -> Progress | None:
        """Progress of a stage with its newest metrics: from its log if it has one, else from its last report."""
        points = self.curve(key).points
        if not points:
            return self.progress(key)
        step, figures = points[-1]
        total = figures.get("total")
        metrics = {**figures, "reward": figures["reward_mean"]} if "reward_mean" in figures else figures
        return Progress(step=step, total=total if isinstance(total, int) else 0, metrics=metrics)

    def attempts(self, key: str) -> int:
        """Number of the newest attempt, from 1; 0 before the first. Each attempt has a log folder."""
        try:
            numbers = [int(each.name) for each in os.scandir(self._logs(key)) if each.name.isdigit()]
        except OSError:
            return 0
        return max(numbers, default=0)

    def began(self, key: str, attempt: int) -> datetime | None:
        """Start of an attempt: its log folder itself is written only then."""
        return _changed(self._logs(key) / str(attempt))

    def _logs(self, key: str) -> Path:
        return self.folder / "logs" / key

    def events(self, number: int) -> list[dict[str, Any]]:
        """The last `number` events, oldest first: {"time", "type", "message", …}."""
        try:
            with (self.folder / "events.jsonl").open("rb") as stream:
                stream.seek(max(os.fstat(stream.fileno()).st_size - TAIL, 0))
                lines = stream.read().splitlines()
        except OSError:
            return []
        return list(_events(lines))[-number:]

    def changed(self) -> datetime:
        """Last change of the folder: the age of a run whose objects cannot be read."""
        return _changed(self.folder) or datetime.fromtimestamp(0, UTC)


def _changed(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None


def all_in(parent: Path) -> list[Path]:
    """Run folders of a folder, including empty ones and those that lost their objects."""
    try:
        folders = [Path(each.path) for each in os.scandir(parent) if each.is_dir() and not each.name.startswith(".")]
    except OSError:
        return []
    return [each for each in folders if any((each / sign).exists() for sign in SIGNS) or not _has_content(each)]


def _has_content(folder: Path) -> bool:
    try:
        return any(os.scandir(folder))
    except OSError:
        return True


@contextlib.contextmanager
def readable(where: Path) -> Iterator[None]:
    """Turns an OSError into a UserError: a folder of another user, a failing disk."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(where)) from None


def _parsed(body: Any) -> tuple[Object, tuple[str, ...]]:
    """The object of a document, and one sentence for each value that was ignored.

    Raises:
        ValueError, KeyError, TypeError: the document is of another API, or lacks a required part.
    """
    thing, ignored = lenient.read(body)
    if thing is None or type(thing) is not KINDS[thing.kind]:
        return objects.parse(body), ()
    if body.get("apiVersion") != API_VERSION and not lenient.is_newer(body):
        return objects.parse(body), ()
    return thing, ignored


def _read_progress(workdir: Path) -> Progress | None:
    try:
        found = progress.read(workdir)
    except OSError:
        return None
    holder, _ = lenient.read({"kind": "SFTStage", "status": {"progress": found}})  # any stage: all report alike
    return holder.status.progress if isinstance(holder, Stage) else None


def _events(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
            datetime.fromisoformat(event["time"])
        except (ValueError, KeyError, TypeError):
            continue
        if {"type", "message"} <= set(event):
            yield event
