"""Checkpoints over a backend: published whole or not at all, verified when read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gog import finite_json, metrics
from gog.errors import UserError, unwritable
from gog.store import hashing
from gog.store.backend import Backend, CorruptBlob, MissingBlob, Unavailable
from gog.store.counted import counted
from gog.store.files import FileBackend
from gog.store.model import Blob, Manifest, manifest_key

OWN = ("blobs", "manifests", "latest")
"""Top names that only checkpoints use."""


class Store:
    """A checkpoint store over a backend, or in a folder, which need not exist to be read."""

    def __init__(self, place: Backend | Path) -> None:
        self.backend: Backend = FileBackend(place) if isinstance(place, Path) else place
        self._staged: set[str] = set()
        metrics.initialise_store()

    @property
    def where(self) -> str:
        """Its address as a user knows it."""
        return self.backend.where()

    @counted("probe")
    def probe(self) -> None:
        """Raises UserError for a place that cannot be a store, Unavailable for one that does not answer."""
        self.backend.probe()

    # ---- publishing

    @counted("publish")
    def publish(
        self,
        stage: str,
        step: int,
        files: Mapping[str, Path],
        *,
        meta: Mapping[str, Any] | None = None,
        parents: tuple[str, ...] = (),
    ) -> Manifest:
        """Commits a checkpoint. Raises UserError when the disk is full or the step exists with other content."""
        return self.commit(stage, step, self.stage_blobs(files), meta=meta, parents=parents)

    @counted("publish")
    def stage_blobs(self, files: Mapping[str, Path]) -> dict[str, Blob]:
        """Stores files without committing them: each rank stages its own shards, then one commits them all."""
        staged = {}
        with self._writing(self.where):
            for name, path in files.items():
                staged[name] = hashing.blob_of(path)
                self.backend.put_blob(path, staged[name])
                self._staged.add(staged[name].hash)
        return staged

    @counted("commit")
    def commit(
        self,
        stage: str,
        step: int,
        blobs: Mapping[str, Blob],
        *,
        meta: Mapping[str, Any] | None = None,
        parents: tuple[str, ...] = (),
    ) -> Manifest:
        """Makes staged files a checkpoint.

        Raises:
            UserError: a file is not staged, or the step exists with other content.
            ValueError: a number in `meta` is not finite. `null` in its place would be read as another setting.
        """
        created = datetime.now(UTC).isoformat(timespec="seconds")
        files = dict(blobs)
        manifest = Manifest(
            stage=stage, step=step, files=files, meta=dict(meta or {}), parents=parents, created=created
        )
        text = finite_json.dumps(manifest, indent=1)
        with self._writing(self.where):
            for name, blob in files.items():
                if blob.hash not in self._staged:
                    with self._told(manifest, name):
                        self.backend.check_blob(blob)
            if not self.backend.put_if_absent(manifest.key, text.encode()):
                manifest = self._same(manifest)
            self._advance(stage, step)
        metrics.record_checkpoint(stage, manifest.timestamp)
        return manifest

    def _same(self, manifest: Manifest) -> Manifest:
        existing = self.manifest(manifest.stage, manifest.step)
        if not existing.holds(manifest.files):
            raise UserError(
                f"checkpoint {manifest.ref} exists with other content",
                where=self.where,
                remedy="two processes write the same stage, or the store belongs to another run",
            )
        return existing

    def _advance(self, stage: str, step: int) -> None:
        while True:
            there = self.backend.read(f"latest/{stage}")
            newest = max([step, *self.steps(stage)])
            if _number(there.data if there else b"") >= newest:
                return
            if self.backend.swap(f"latest/{stage}", str(newest).encode(), there.version if there else None):
                return

    # ---- reading

    @counted("read")
    def stages(self) -> list[str]:
        """Keys of all stages that have a checkpoint, sorted."""
        return self.backend.folders("manifests/")

    @counted("read")
    def steps(self, stage: str) -> list[int]:
        """Committed steps in ascending order."""
        names = (Path(entry.key) for entry in self.backend.entries(f"manifests/{stage}/"))
        return sorted(int(path.stem) for path in names if path.suffix == ".json" and path.stem.isdigit())

    @counted("read")
    def latest(self, stage: str) -> Manifest | None:
        """The newest committed checkpoint of a stage, None when there is none.

        A killed publication leaves the pointer behind the listing, a listing may be behind the pointer: the larger counts.
        """
        steps = self.steps(stage)
        there = self.backend.read(f"latest/{stage}")
        pointed = _number(there.data if there else b"")
        if pointed > max(steps, default=-1) and self.backend.read(manifest_key(stage, pointed)) is not None:
            return self.manifest(stage, pointed)
        return self.manifest(stage, steps[-1]) if steps else None

    @counted("read")
    def manifest(self, stage: str, step: int) -> Manifest:
        """Raises UserError when there is none, or none that can be read."""
        key = manifest_key(stage, step)
        there = self.backend.read(key)
        if there is None:
            raise UserError(f"no checkpoint {stage}/{step}", where=self.where, remedy="has the stage run?")
        try:
            return Manifest.model_validate_json(there.data)
        except ValidationError as error:
            first = error.errors()[0]
            where = self.backend.where(key)
            raise UserError(
                f"manifest is not valid: {first['loc']} {first['msg']}", where=where, remedy=_repair(where)
            ) from None

    def resolve(self, ref: str) -> Manifest:
        """`stage/step`, or `stage` for its newest -> Manifest. Raises UserError when there is none."""
        stage, _, step = ref.partition("/")
        if step.isdecimal():
            return self.manifest(stage, int(step))
        if step:
            raise UserError(f"{ref!r} names no checkpoint", where=self.where, remedy="write stage or stage/step")
        newest = self.latest(stage)
        if newest is None:
            raise UserError(f"no checkpoint of {stage!r}", where=self.where, remedy="run that stage first")
        return newest

    @counted("fetch")
    def open(self, manifest: Manifest, name: str) -> Path:
        """Path of a checkpoint's file, verified, not to be written. Raises UserError for a missing or corrupt one."""
        blob = self._blob(manifest, name)
        with self._told(manifest, name):
            return self.backend.open_blob(blob)

    @counted("check")
    def check(self, manifest: Manifest) -> None:
        """Whether every file is there and whole, as far as the store can tell cheaply. Raises UserError."""
        for name, blob in manifest.files.items():
            with self._told(manifest, name):
                self.backend.check_blob(blob)

    @counted("fetch")
    def fetch(self, manifest: Manifest, folder: Path) -> Path:
        """All files of a checkpoint, verified, in a folder; appears whole or not at all."""
        if folder.exists():
            raise UserError("exists already", where=str(folder), remedy="fetch into a new folder")
        with self._writing(folder), appearing(folder) as target:
            for name, blob in manifest.files.items():
                path = inside(target, name)
                if path is None:
                    raise UserError(
                        f"{name!r} of checkpoint {manifest.ref} points outside its folder", where=self.where
                    )
                path.parent.mkdir(parents=True, exist_ok=True)
                with self._told(manifest, name):
                    self.backend.fetch_blob(blob, path)
        return folder

    # ---- plain objects

    @counted("put")
    def put_object(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> str:
        """Writes an object beside the checkpoints, over what is there; its address."""
        self._check_not_ours(key)
        with self._writing(self.where):
            self.backend.put(key, data, content_type)
        return self.backend.where(key)

    @counted("read")
    def get_object(self, key: str) -> bytes | None:
        """None when there is none."""
        self._check_not_ours(key)
        there = self.backend.read(key)
        return there.data if there else None

    def _check_not_ours(self, key: str) -> None:
        if key.split("/")[0] in OWN or ".." in key.split("/") or key.startswith("/"):
            raise ValueError(f"{key!r} is no key for a plain object")

    # ---- saying what went wrong

    def _blob(self, manifest: Manifest, name: str) -> Blob:
        if name not in manifest.files:
            raise UserError(
                f"checkpoint {manifest.ref} has no {name!r}",
                where=self.where,
                remedy=f"it holds {sorted(manifest.files)}",
            )
        return manifest.files[name]

    @contextlib.contextmanager
    def _told(self, manifest: Manifest, name: str) -> Iterator[None]:
        remedy = _repair(self.backend.where(manifest.key))
        try:
            yield
        except MissingBlob as error:
            what = f"{name!r} of checkpoint {manifest.ref} is missing"
            raise UserError(what, where=str(error), remedy=remedy) from None
        except CorruptBlob as error:
            what = f"{name!r} of checkpoint {manifest.ref} is corrupt"
            raise UserError(what, where=str(error), remedy=remedy.replace("delete", "delete it and", 1)) from None

    @contextlib.contextmanager
    def _writing(self, where: object) -> Iterator[None]:
        try:
            yield
        except Unavailable:
            raise
        except OSError as error:
            raise unwritable(error, where) from error


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` at the end and vanishes on failure. Raises OSError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        target = Path(temporary) / "files"
        target.mkdir()
        yield target
        target.rename(folder)


def inside(folder: Path, name: str) -> Path | None:
    """Where a file of this name goes in a folder; None if that is outside."""
    path = Path(os.path.normpath(folder / name))
    return path if path != folder and path.is_relative_to(folder) else None


def _number(data: bytes) -> int:
    """The step a pointer names; -1 when it is absent or unreadable, for a pointer can always be made again."""
    try:
        return int(data)
    except ValueError:
        return -1


def _repair(where: str) -> str:
    return f"delete {where}, then `gog resume`: it goes on from the checkpoint before"
