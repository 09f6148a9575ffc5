"""A run folder as files that others write: read again and again at little cost, never written, damage told and borne.

An object is parsed when its file has changed. A stage that logs its steps is told by its log, which grows, and not by
progress.json, which is written anew with every step.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gog import progress
from gog.errors import UserError
from gog_console import run_folder
from gog_console.status.metric_log import Curve
from gog_operator.api.objects import STAGE_KINDS, Endpoint, Object, Progress, Stage
from gog_operator.cluster import lock
from gog_operator.cluster.files import ObjectFiles
from gog_operator.cluster.interface import Thing

TAIL = 64 * 1024
"""Bytes at the end of events.jsonl that hold more events than anybody is shown."""
SIGNS = ("objects", "events.jsonl", lock.FILE)
"""A folder with one of these was made by a run."""


class RunFolder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = ObjectFiles(folder / "objects")
        self._curves: dict[str, Curve] = {}
        self._told: dict[str, tuple[tuple[int, int, int], Progress | None]] = {}

    def root(self) -> Object:
        """Raises UserError when there is none, or none that can be read."""
        with said(self.folder):
            found = run_folder.root_of(self.files)
        if found is None:
            raise UserError("no objects", where=str(self.folder), remedy="remove the folder to start afresh")
        return found

    def driver(self) -> int | None:
        """Process that drives the run. Raises UserError when that cannot be known."""
        with said(self.folder):
            return lock.holder(self.folder)

    def stages(self) -> tuple[list[Stage], list[str]]:
        """Stages in their order, and a sentence for each object that cannot be read."""
        read = [self._all(kind) for kind in STAGE_KINDS.values()]
        return [each for things, _ in read for each in things], [each for _, problems in read for each in problems]

    def endpoints(self) -> tuple[list[Endpoint], list[str]]:
        return self._all(Endpoint)

    def _all(self, kind: type[Thing]) -> tuple[list[Thing], list[str]]:
        things, problems = [], []
        for path in sorted(self.files.folder.glob(f"{kind.__name__.lower()}.*.yaml")):
            try:
                with said(path):
                    thing = self.files.get(kind, path.name.split(".", 1)[1].removesuffix(".yaml"))
            except UserError as error:
                problems.append(f"{path.name} {error.what}")
            else:
                things += [thing] if thing is not None else []
        return things, problems

    def curve(self, key: str) -> Curve:
        """Of the stage's steps, up to date."""
        curve = self._curves.setdefault(key, Curve(self.folder / "work" / key / "metrics.jsonl"))
        curve.update()
        return curve

    def progress(self, key: str) -> Progress | None:
        """What the stage told last."""
        path = self.folder / "work" / key / progress.FILE
        try:
            seen = path.stat()
        except OSError:
            return None
        stamp = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        if key not in self._told or self._told[key][0] != stamp:
            self._told[key] = stamp, _progress(path.parent)
        return self._told[key][1]

    def told(self, key: str) -> Progress | None:
        """How far a stage has come, with its figures of now: from its log where there is one."""
        points = self.curve(key).points
        if not points:
            return self.progress(key)
        step, figures = points[-1]
        total = figures.get("total")
        metrics = {**figures, "reward": figures["reward_mean"]} if "reward_mean" in figures else figures
        return Progress(step=step, total=total if isinstance(total, int) else 0, metrics=metrics)

    def attempts(self, key: str) -> int:
        """Number of the newest attempt that was started: each has a folder of logs."""
        try:
            numbers = [int(each.name) for each in os.scandir(self._logs(key)) if each.name.isdigit()]
        except OSError:
            return 0
        return max(numbers, default=0)

    def began(self, key: str, attempt: int) -> datetime | None:
        """When an attempt was started: nothing is put into its folder of logs itself but at the start."""
        return _changed(self._logs(key) / str(attempt))

    def _logs(self, key: str) -> Path:
        return self.folder / "logs" / key

    def events(self, number: int) -> list[dict[str, Any]]:
        """The last ones, oldest first: {"time", "type", "message", …}."""
        try:
            with (self.folder / "events.jsonl").open("rb") as stream:
                stream.seek(max(os.fstat(stream.fileno()).st_size - TAIL, 0))
                lines = stream.read().splitlines()
        except OSError:
            return []
        return list(_events(lines))[-number:]

    def changed(self) -> datetime:
        """When something was last put into the folder: the age of what tells no other."""
        return _changed(self.folder) or datetime.fromtimestamp(0, UTC)


def _changed(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None


def all_in(parent: Path) -> list[Path]:
    """Run folders, and what was to become one: an empty folder, or one that lost its objects."""
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
def said(where: Path) -> Iterator[None]:
    """Says an OSError as a UserError: a folder of somebody else's, a disk that fails."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(where)) from None


def _progress(workdir: Path) -> Progress | None:
    try:
        found = progress.read(workdir)
        return Progress.model_validate(found) if found is not None else None
    except (ValueError, OSError):
        return None


def _events(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
            datetime.fromisoformat(event["time"])
        except (ValueError, KeyError, TypeError):
            continue
        if {"type", "message"} <= set(event):
            yield event
