"""What every stage does around its method: its store, its data, its progress, its log of metrics."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gog import archive, dataset, progress, store
from gog.errors import UserError
from gog.spec import DataSpec, StageConfig
from gog_recipes.world import generate

LENGTHS = ("steps", "max_steps")
"""Settings that may change between attempts: a stage that goes on longer is still the same."""


class Stage:
    """The surroundings of one stage attempt."""

    def __init__(self, config: StageConfig) -> None:
        self.config = config
        self.key = config.key
        self.store = store.open_store(config.store.uri)
        self.workdir = Path(config.workdir) if config.workdir else Path(tempfile.mkdtemp(prefix=f"gog-{self.key}-"))
        self.workdir.mkdir(parents=True, exist_ok=True)
        self._check_that_ours()
        self.log = MetricLog(self.workdir / "metrics.jsonl")

    def _check_that_ours(self) -> None:
        """A stage goes on from the checkpoint under its key, so that must be its own. Raises UserError."""
        newest = self.store.latest(self.key)
        there = newest.meta.get("settings", {}) if newest else {}
        differing = [
            name
            for name, own in self.settings().items()
            if name in there and name not in LENGTHS and there[name] != own
        ]
        if newest and differing:
            maker = f"by run {there['run']!r}" if "run" in differing else f"with another {', '.join(differing)}"
            raise UserError(
                f"checkpoint {newest.ref} was made {maker}",
                where=self.config.store.uri,
                remedy="name another store: this stage would go on from what is not its own",
            )

    def input(self, kind: str) -> store.Manifest:
        """The checkpoint of an earlier stage that this one starts from. Raises UserError when there is none."""
        return self.store.resolve(self.config.inputs.get(kind, kind))

    def has_input(self, kind: str) -> bool:
        return kind in self.config.inputs or self.store.latest(kind) is not None

    def folder(self, manifest: store.Manifest) -> Path:
        """A checkpoint's files, verified, in a folder of their own."""
        target = self.workdir / "inputs" / manifest.ref.replace("/", "-")
        return target if target.is_dir() else self.store.fetch(manifest, target)

    def archive(self, manifest: store.Manifest) -> archive.Archive:
        return archive.Archive(self.store.open(manifest, "trajectories.zip"))

    def questions(self, split: str) -> tuple[Path, list[dataset.Question]]:
        """(dataset folder, its questions of a split)."""
        folder = data_folder(self.config.data, self.workdir)
        return folder, dataset.read_questions(folder, split)

    def report(self, step: int, total: int, **metrics: Any) -> None:
        progress.report(self.workdir, step, total, metrics)

    def settings(self) -> dict[str, Any]:
        """The settings that decide the stage's result, as they were in force; places and addresses left out."""
        places = {"store", "endpoints", "workdir", "inputs", "data"}
        return self.config.model_dump(mode="json", exclude=places)

    def publish(
        self,
        step: int,
        files: Mapping[str, Path],
        *,
        meta: Mapping[str, Any],
        parents: list[store.Manifest],
        complete: bool = True,
    ) -> store.Manifest:
        """Commits a checkpoint; complete: it is the stage's last, which tells the control plane that the stage is done."""
        refs = tuple(parent.ref for parent in parents)
        everything = {**meta, "complete": complete, "settings": self.settings()}
        manifest = self.store.publish(self.key, step, files, meta=everything, parents=refs)
        print(f"{self.key}: checkpoint {manifest.ref} committed", flush=True)
        return manifest


def data_folder(data: DataSpec, workdir: Path) -> Path:
    """The dataset's folder; the embedded world is made if need be. Raises UserError."""
    if data.world is not None:
        folder = workdir / "data"
        generate.write(folder, data.world)
        return folder
    if data.uri is not None and not data.uri.startswith("file://"):
        raise UserError("only file:// datasets can be read yet", where=f"data.uri: {data.uri}", remedy="use data.path")
    folder = Path(data.uri.removeprefix("file://") if data.uri else str(data.path))
    if not folder.is_dir():
        raise UserError(
            "no such folder", where=f"data.path: {folder}", remedy="name a dataset folder, or use data.world"
        )
    return folder


class MetricLog:
    """One JSON line per step. A resumed stage goes on from the lines its checkpoint holds: no gap, no repeat."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        path.write_text("")

    def resume(self, checkpoint: Path) -> None:
        self.lines = [json.loads(line) for line in checkpoint.read_text().splitlines()]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))

    def append(self, **values: Any) -> None:
        line = {name: round(value, 7) if isinstance(value, float) else value for name, value in values.items()}
        self.lines.append(line)
        with self.path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
