"""Reads a run's objects and store into `Data`. The only part of the report that reads files.

Each piece is read independently, so a corrupt blob only removes the curve or the images it contains, and is listed as a
problem. If the newest checkpoint of a stage cannot be read, the previous one is used. Trajectory archives are opened for
a few steps spread over training, because verifying one reads all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from gog import profiles, store, trajectory_zip
from gog.calls import spend_log
from gog.calls.spend import Spend
from gog.errors import UserError
from gog.levels import Graded
from gog.spec import STAGES
from gog_console import resources
from gog_console.report import selection
from gog_console.report import stages as stage_rows
from gog_console.report.model import Data, Evaluation, Row, Sample, Stage, kind_of, order_of, spread
from gog_console.resources import Problem
from gog_operator.api.objects import GoGRun, Object, ToolServer

SAMPLED_STEPS = 12
"""Checkpoints of a GRPO stage from which trajectories are shown."""
TOLERATED = (UserError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""Exceptions that a damaged or foreign file can cause while it is read."""

Read = TypeVar("Read")


def gather(folder: Path, now: datetime) -> Data:
    """Reads a run folder. Raises UserError only when it does not exist."""
    if not folder.is_dir():
        raise UserError("no such run folder", where=str(folder), remedy="`gog status` lists the runs")
    found, problems = resources.read(folder / "objects")
    happened = _events(folder / "events.jsonl")
    return collect(found, store_of(folder, found), now=now, name=folder.name, problems=problems, events=happened)


def collect(
    found: Sequence[Object],
    kept: store.Store,
    *,
    now: datetime,
    name: str,
    problems: Sequence[Problem] = (),
    events: Sequence[Row] = (),
) -> Data:
    """Reads a run from its objects, its store and its events.

    Args:
        found: the run's objects.
        kept: the store that they wrote to.
        now: the current time.
        name: name of the run if no object contains it.
        problems: what could not be read so far.
        events: events in order.
    """
    run, root = resources.run_of(found), resources.root_of(found)
    state, message = stage_rows.condition(root)
    reader = _Reader(kept, list(problems))
    stages = reader.stages(_expected(run, [stage_rows.row(each) for each in resources.stages_of(found)]))
    samples, archives = reader.samples(stages)
    shown = selection.choose(samples)
    return Data(
        name=(root.name if root is not None else "") or name,
        now=now,
        condition=state if root is not None else "Unknown",
        message=message,
        spec=resources.spec_of(root),
        created=resources.utc(root.metadata.creation_timestamp) if root is not None else None,
        completed=resources.utc(root.status.completion_time) if root is not None else None,
        stages=stages,
        endpoints=tuple(map(_tool_server, resources.tool_servers_of(found))),
        curves=reader.all(stages, ("sft", "grpo"), "metrics.jsonl", _rows),
        levels=reader.all(stages, ("stratify",), "levels.jsonl", _levels),
        evaluations=reader.all(stages, ("evaluate",), "results.json", _evaluation),
        samples=tuple(shown),
        images=reader.images(shown, archives),
        recorded=len(samples),
        spend=reader.spend(),
        profiles=reader.profiles(),
        problems=tuple(reader.problems),
        events=tuple(events),
    )


class _Reader:
    """Reads parts of a store and records what cannot be read."""

    def __init__(self, kept: store.Store, problems: list[Problem]) -> None:
        self.kept = kept
        self.problems = problems

    def stages(self, declared: Sequence[Stage]) -> tuple[Stage, ...]:
        """Declared stages and those found only in the store, each with its committed steps."""
        known = {stage.key for stage in declared}
        extra = [
            Stage(key, kind_of(key), condition="Stored")
            for key in self.kept.stages()
            if key not in known and kind_of(key)
        ]
        return tuple(sorted((self._committed(stage) for stage in [*declared, *extra]), key=order_of))

    def _committed(self, stage: Stage) -> Stage:
        steps = tuple(self.kept.steps(stage.key))
        manifest = self._newest(stage.key, steps)
        if manifest is None:
            return _replace(stage, steps=steps)
        checkpoint = stage.checkpoint or manifest.ref
        return _replace(stage, steps=steps, meta=manifest.meta, checkpoint=checkpoint)

    def _newest(self, key: str, steps: Sequence[int]) -> store.Manifest | None:
        for step in reversed(steps):
            try:
                return self.kept.manifest(key, step)
            except TOLERATED as error:
                self._note(f"{key}/{step}", error, key)
        return None

    def all(
        self, stages: Sequence[Stage], kinds: Sequence[str], name: str, parse: Callable[[Path], Read]
    ) -> dict[str, Read]:
        """One file of each stage of these kinds, from the newest checkpoint where it is readable."""
        read = {stage.key: self._file(stage, name, parse) for stage in stages if stage.kind in kinds}
        return {key: value for key, value in read.items() if value is not None}

    def _file(self, stage: Stage, name: str, parse: Callable[[Path], Read]) -> Read | None:
        for step in stage.steps[: -1 - selection.FALLBACKS : -1]:
            try:
                manifest = self.kept.manifest(stage.key, step)
                if name in manifest.files:
                    return parse(self.kept.open(manifest, name))
            except TOLERATED as error:
                self._note(f"{name} of {stage.key}/{step}", error, stage.key)
        return None

    def samples(self, stages: Sequence[Stage]) -> tuple[list[Sample], dict[tuple[str, int], trajectory_zip.Archive]]:
        """Trajectories of some checkpoints, and the archives that contain their images."""
        found: list[Sample] = []
        archives: dict[tuple[str, int], trajectory_zip.Archive] = {}
        for stage in stages:
            for step in self._sampled(stage):
                try:
                    path = self.kept.open(self.kept.manifest(stage.key, step), "trajectories.zip")
                    opened = trajectory_zip.Archive(path)
                    found += [Sample(item, stage.key, stage.kind, step) for item in opened.trajectories()]
                    archives[stage.key, step] = opened
                except TOLERATED as error:
                    self._note(f"trajectories of {stage.key}/{step}", error, stage.key)
        return found, archives

    def _sampled(self, stage: Stage) -> list[int]:
        """Checkpoints whose trajectories are shown: spread over training, else the newest."""
        having = [step for step in stage.steps if self._holds(stage.key, step, "trajectories.zip")]
        if stage.kind == "grpo":
            return spread(having, 2 if stage.arm else SAMPLED_STEPS)
        return having[-1:]

    def _holds(self, key: str, step: int, name: str) -> bool:
        try:
            return name in self.kept.manifest(key, step).files
        except TOLERATED:
            return False  # recorded when the stage was read

    def images(
        self, samples: Sequence[Sample], archives: dict[tuple[str, int], trajectory_zip.Archive]
    ) -> dict[str, bytes]:
        """PNG bytes of every image of the samples, by content hash."""
        found: dict[str, bytes] = {}
        for sample in samples:
            for image in sorted(trajectory_zip.shown(sample.trajectory) - set(found)):
                try:
                    data = archives[sample.key, sample.step].png(image)
                except TOLERATED as error:
                    self._note(f"image {image[:12]} of {sample.key}/{sample.step}", error, sample.key)
                    continue
                if data is not None:
                    found[image] = data
        return found

    def profiles(self) -> dict[str, tuple[str, ...]]:
        """Names of the traces of each stage."""
        try:
            keys = [entry.key.split("/") for entry in self.kept.objects(f"{profiles.FOLDER}/")]
        except TOLERATED as error:
            self._note("profiles", error, "")
            return {}
        stages = dict.fromkeys(parts[1] for parts in keys if len(parts) == 3)
        return {stage: tuple(parts[2] for parts in keys if len(parts) == 3 and parts[1] == stage) for stage in stages}

    def spend(self) -> Spend:
        """What the run's processes reported to have spent."""
        try:
            return spend_log.read(self.kept)
        except TOLERATED as error:
            self._note("spend", error, "")
            return Spend()

    def _note(self, where: str, error: Exception, stage: str) -> None:
        what = error.what if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        problem = Problem(where, what[:300], stage)
        if problem not in self.problems:
            self.problems.append(problem)


def _tool_server(tool_server: ToolServer) -> Row:
    return {"name": tool_server.name, "ready": tool_server.holds("Ready"), **resources.spec_of(tool_server)}


def _expected(run: GoGRun | None, declared: Sequence[Stage]) -> list[Stage]:
    """Declared stages and those that the run has not started yet."""
    if run is None:
        return list(declared)
    left_out = {*(stage.key for stage in declared), *run.spec.stages.skip}
    return [*declared, *(Stage(kind, kind) for kind in STAGES if kind not in left_out)]


def store_of(folder: Path, found: Sequence[Object]) -> store.Store:
    """The store in the run folder, or the folder that the manifest names."""
    run = resources.run_of(found)
    uri = run.spec.store.uri if run is not None and run.spec.store is not None else ""
    own = folder / "store"
    if own.is_dir() or not uri.startswith("file://"):
        return store.Store(own)
    return store.Store(Path(uri.removeprefix("file://")))


def _events(path: Path) -> list[Row]:
    """Events in order; a damaged line is skipped, because the objects contain the same facts."""
    found: list[Row] = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found


def _rows(path: Path) -> tuple[Row, ...]:
    """Rows of a metric log by step, the last one of each; an incomplete last line, which a kill leaves, is skipped."""
    lines = path.read_bytes().splitlines()
    rows: dict[int, Row] = {}
    for place, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            if place == len(lines):
                break
            raise
        rows[int(row["step"])] = row
    return tuple(rows[step] for step in sorted(rows))


def _levels(path: Path) -> tuple[Graded, ...]:
    return tuple(Graded.model_validate_json(line) for line in path.read_bytes().splitlines() if line)


def _evaluation(path: Path) -> Evaluation:
    found: Any = json.loads(path.read_bytes())
    rows = [row for row in found["rows"] if isinstance(row, dict) and "policy" in row]
    comparisons = [row for row in found.get("comparisons") or () if isinstance(row, dict) and "a" in row and "b" in row]
    means = [row for row in found.get("means") or () if isinstance(row, dict) and "policy" in row]
    return Evaluation(tuple(rows), tuple(comparisons), tuple(means), served_by(found))


def served_by(results: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Answers of the judge and the endpoint of an evaluation, by the model that they name."""
    found = results.get("served_by")
    counts = {name: each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}
    return {str(name): {str(model): int(count) for model, count in each.items()} for name, each in counts.items()}


def _replace(stage: Stage, **changes: Any) -> Stage:
    return Stage(**{**stage.__dict__, **changes})
