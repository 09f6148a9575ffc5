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

from gog import finite_json, metrics, validation
from gog.errors import UserError, unwritable
from gog.store import hashing
from gog.store.backend import Backend, CorruptBlob, Entry, MissingBlob, Unavailable
from gog.store.counted import counted
from gog.store.files import FileBackend
from gog.store.model import Blob, Manifest, manifest_key

RESERVED = ("blobs", "manifests", "latest", "writers")
"""Top-level names that only checkpoints and the list of writers use."""


class Store:
    """A checkpoint store over a backend, or in a folder, which need not exist to be read.

    All methods raise Unavailable when the server does not answer within the retry budget.
    """

    def __init__(self, backend: Backend | Path) -> None:
        self.backend: Backend = FileBackend(backend) if isinstance(backend, Path) else backend
        self._staged: set[str] = set()
        metrics.initialise_store()

    @property
    def where(self) -> str:
        """Its address, for messages."""
        return self.backend.where()

    @counted("probe")
    def probe(self) -> None:
        """Raises UserError unless the backend can be used as a store."""
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
        """Stages files and commits them as a checkpoint.

        Args:
            stage: key of the stage.
            step: its step; a step is committed once.
            files: by path relative to the checkpoint.
            meta: results and settings, with finite numbers only.
            parents: checkpoints it was made from, as `stage/step`.

        Returns:
            The committed checkpoint; the existing one if it has the same content.

        Raises:
            UserError: the disk is full, or the step exists with other content.
            ValueError: a number in `meta` is not finite.
        """
        return self.commit(stage, step, self.stage_blobs(files), meta=meta, parents=parents)

    @counted("publish")
    def stage_blobs(self, files: Mapping[str, Path]) -> dict[str, Blob]:
        """Stores files without committing them. Each rank stages its own shards, then one rank commits all of them.

        Args:
            files: by path relative to the checkpoint.

        Returns:
            Their blobs under the same names.

        Raises:
            UserError: the disk is full or cannot be written.
        """
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
        """Commits staged files as a checkpoint.

        Args:
            stage: key of the stage.
            step: its step.
            blobs: staged by any process, by path relative to the checkpoint.
            meta: results and settings.
            parents: checkpoints it was made from, as `stage/step`.

        Returns:
            The committed checkpoint; the existing one if it has the same content.

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
                    with self._explained(manifest, name):
                        self.backend.check_blob(blob)
            if not self.backend.put_if_absent(manifest.key, text.encode()):
                manifest = self._same(manifest)
            self._advance(stage, step)
        metrics.record_checkpoint(stage, manifest.timestamp)
        return manifest

    def _same(self, manifest: Manifest) -> Manifest:
        """The existing checkpoint of this step. Raises UserError unless it has the same files."""
        existing = self.manifest(manifest.stage, manifest.step)
        if not existing.holds(manifest.files):
            raise UserError(
                f"checkpoint {manifest.ref} exists with other content",
                where=self.where,
                remedy="two processes write the same stage, or the store belongs to another run",
            )
        return existing

    def _advance(self, stage: str, step: int) -> None:
        """Sets the pointer to the newest step, unless it is there or beyond."""
        while True:
            found = self.backend.read(f"latest/{stage}")
            newest = max([step, *self.steps(stage)])
            if _number(found.data if found else b"") >= newest:
                return
            if self.backend.swap(f"latest/{stage}", str(newest).encode(), found.version if found else None):
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
        """The newest committed checkpoint of a stage; None if there is none.

        The larger of pointer and listing counts: a killed publication leaves the pointer behind, and a listing may lag.

        Raises:
            UserError: its manifest cannot be read.
        """
        steps = self.steps(stage)
        found = self.backend.read(f"latest/{stage}")
        pointed = _number(found.data if found else b"")
        if pointed > max(steps, default=-1) and self.backend.read(manifest_key(stage, pointed)) is not None:
            return self.manifest(stage, pointed)
        return self.manifest(stage, steps[-1]) if steps else None

    @counted("read")
    def manifest(self, stage: str, step: int) -> Manifest:
        """The checkpoint of a step. Raises UserError if it does not exist or cannot be read."""
        key = manifest_key(stage, step)
        found = self.backend.read(key)
        if found is None:
            raise UserError(
                f"no checkpoint {stage}/{step}",
                where=self.where,
                remedy="has the stage run?",
            )
        try:
            return Manifest.model_validate_json(found.data)
        except ValidationError as error:
            where = self.backend.where(key)
            what = f"manifest is not valid: {validation.first_sentence(error)}"
            raise UserError(what, where=where, remedy=_repair(where)) from None

    def resolve(self, ref: str) -> Manifest:
        """The checkpoint that a reference names: `stage/step`, or `stage` for its newest. Raises UserError if there is none."""
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
        """Path of a checkpoint's file, verified; read-only for callers. Raises UserError if it is missing or corrupt."""
        blob = self._blob(manifest, name)
        with self._explained(manifest, name):
            return self.backend.open_blob(blob)

    @counted("check")
    def check(self, manifest: Manifest) -> None:
        """Checks every file of a checkpoint as far as the store can without reading it here. Raises UserError."""
        for name, blob in manifest.files.items():
            with self._explained(manifest, name):
                self.backend.check_blob(blob)

    @counted("fetch")
    def fetch(self, manifest: Manifest, folder: Path) -> Path:
        """Writes all files of a checkpoint, verified, to a new folder, which appears whole or not at all.

        Returns:
            `folder`.

        Raises:
            UserError: a file is missing or corrupt, or the folder exists or cannot be written.
        """
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
                with self._explained(manifest, name):
                    self.backend.fetch_blob(blob, path)
        return folder

    # ---- plain objects

    @counted("put")
    def put_object(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> str:
        """Writes an object beside the checkpoints and replaces one that exists.

        Args:
            key: relative to the store's address.
            data: its content.
            content_type: MIME type, for browsers.

        Returns:
            Its address.

        Raises:
            UserError: the disk is full or cannot be written.
            ValueError: the key is reserved for checkpoints or leads outside the store.
        """
        self._check_not_reserved(key)
        with self._writing(self.where):
            self.backend.put(key, data, content_type)
        return self.backend.where(key)

    @counted("read")
    def get_object(self, key: str) -> bytes | None:
        """An object beside the checkpoints; None if there is none. Raises ValueError as `put_object`."""
        self._check_not_reserved(key)
        found = self.backend.read(key)
        return found.data if found else None

    @counted("read")
    def objects(self, folder: str) -> list[Entry]:
        """The objects below a folder beside the checkpoints, by key. Raises ValueError as `put_object`."""
        self._check_not_reserved(folder)
        return sorted(self.backend.entries(folder), key=lambda entry: entry.key)

    @counted("sweep")
    def delete_objects(self, folder: str) -> None:
        """Deletes the objects below a folder beside the checkpoints. Raises ValueError as `put_object`."""
        self._check_not_reserved(folder)
        self.backend.delete_all(folder)

    def _check_not_reserved(self, key: str) -> None:
        if key.split("/")[0] in RESERVED or ".." in key.split("/") or key.startswith("/"):
            raise ValueError(f"{key!r} is no key for a plain object")

    # ---- errors

    def _blob(self, manifest: Manifest, name: str) -> Blob:
        if name not in manifest.files:
            raise UserError(
                f"checkpoint {manifest.ref} has no {name!r}",
                where=self.where,
                remedy=f"it holds {sorted(manifest.files)}",
            )
        return manifest.files[name]

    @contextlib.contextmanager
    def _explained(self, manifest: Manifest, name: str) -> Iterator[None]:
        """Turns a missing or corrupt blob into a UserError about a checkpoint's file."""
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
    """A folder to fill; renamed to `folder` at the end, removed on failure. Raises OSError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        target = Path(temporary) / "files"
        target.mkdir()
        yield target
        target.rename(folder)


def inside(folder: Path, name: str) -> Path | None:
    """The path of a name inside a folder; None if it leads outside."""
    path = Path(os.path.normpath(folder / name))
    return path if path != folder and path.is_relative_to(folder) else None


def _number(data: bytes) -> int:
    """The step in a pointer; -1 if it is absent or unreadable. A pointer can always be derived again."""
    try:
        return int(data)
    except ValueError:
        return -1


def _repair(where: str) -> str:
    return f"delete {where}, then `gog resume`: the run resumes from the checkpoint before it"
