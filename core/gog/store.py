"""Checkpoints: published whole or not at all, and verified when read.

    blobs/<hash>                     bytes by their blake2b-256 (`b2sum -l 256` gives the same)
    manifests/<stage>/<step>.json    which blobs make up a checkpoint; *its appearance is the commit*
    latest/<stage>                   the newest step; only ever advances

A kill before the manifest appears leaves blobs that nobody refers to; a kill after it leaves `latest` behind, which is
why readers take the larger of pointer and listing. Manifests are never overwritten: a second publication of a step
with the same content is a success, with other content an error. No pickles: what a checkpoint holds is safetensors,
JSON and JSON lines.

`file://` here; `s3://` will be a second `Backend` (put-if-absent, put-if-match), nothing more.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gog.errors import UserError, unwritable

CHUNK = 1 << 20


class Blob(BaseModel):
    """A file of a checkpoint. size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Manifest(BaseModel):
    """A committed checkpoint. parents: the checkpoints it was made from, as `stage/step`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = 1
    stage: str
    step: int = Field(ge=0)
    files: dict[str, Blob]
    meta: dict[str, Any] = Field(default_factory=dict)
    parents: tuple[str, ...] = ()
    created: str = ""

    @property
    def ref(self) -> str:
        return f"{self.stage}/{self.step}"


class Store:
    """The store at one `file://` address."""

    def __init__(self, root: Path) -> None:
        self.root = root

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
        try:
            blobs = {name: self._put_blob(path) for name, path in files.items()}
            manifest = Manifest(
                stage=stage,
                step=step,
                files=blobs,
                meta=dict(meta or {}),
                parents=parents,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            if not self._put_if_absent(self._manifest_path(stage, step), manifest.model_dump_json(indent=1).encode()):
                existing = self.manifest(stage, step)
                if existing.files != blobs:
                    raise UserError(
                        f"checkpoint {manifest.ref} exists with other content",
                        where=str(self.root),
                        remedy="two processes write the same stage, or the store belongs to another run",
                    )
                manifest = existing
            self._advance(stage, step)
        except OSError as error:
            raise unwritable(error, self.root) from error
        return manifest

    def latest(self, stage: str) -> Manifest | None:
        """The newest committed checkpoint of a stage, None when there is none."""
        steps = self.steps(stage)
        return self.manifest(stage, steps[-1]) if steps else None

    def steps(self, stage: str) -> list[int]:
        """Committed steps in ascending order."""
        folder = self.root / "manifests" / stage
        if not folder.is_dir():
            return []
        return sorted(int(path.stem) for path in folder.iterdir() if path.suffix == ".json" and path.stem.isdigit())

    def manifest(self, stage: str, step: int) -> Manifest:
        path = self._manifest_path(stage, step)
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise UserError(
                f"no checkpoint {stage}/{step}", where=str(self.root), remedy="has the stage run?"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(
                f"manifest is not valid: {first['loc']} {first['msg']}", where=str(path), remedy=_repair(path)
            ) from None

    def resolve(self, ref: str) -> Manifest:
        """`stage/step`, or `stage` for its newest -> Manifest. Raises UserError when there is none."""
        stage, _, step = ref.partition("/")
        if step.isdecimal():
            return self.manifest(stage, int(step))
        if step:
            raise UserError(f"{ref!r} names no checkpoint", where=str(self.root), remedy="write stage or stage/step")
        newest = self.latest(stage)
        if newest is None:
            raise UserError(f"no checkpoint of {stage!r}", where=str(self.root), remedy="run that stage first")
        return newest

    def open(self, manifest: Manifest, name: str) -> Path:
        """Path of a checkpoint's file, verified. Raises UserError for a missing or corrupt one."""
        if name not in manifest.files:
            raise UserError(
                f"checkpoint {manifest.ref} has no {name!r}",
                where=str(self.root),
                remedy=f"it holds {sorted(manifest.files)}",
            )
        blob = manifest.files[name]
        path, remedy = self._blob_path(blob.hash), _repair(self._manifest_path(manifest.stage, manifest.step))
        if not path.is_file():
            raise UserError(f"{name!r} of checkpoint {manifest.ref} is missing", where=str(path), remedy=remedy)
        if path.stat().st_size != blob.size or _hash(path) != blob.hash:
            raise UserError(f"{name!r} of checkpoint {manifest.ref} is corrupt", where=str(path), remedy=remedy)
        return path

    def fetch(self, manifest: Manifest, folder: Path) -> Path:
        """All files of a checkpoint, verified, in a folder; appears whole or not at all."""
        if folder.exists():
            raise UserError("exists already", where=str(folder), remedy="fetch into a new folder")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                target = Path(temporary) / "files"
                target.mkdir()
                for name in manifest.files:
                    self._fetch_file(manifest, name, target)
                target.rename(folder)
        except OSError as error:
            raise unwritable(error, folder) from error
        return folder

    def _fetch_file(self, manifest: Manifest, name: str, target: Path) -> None:
        path = Path(os.path.normpath(target / name))
        if not path.is_relative_to(target):
            raise UserError(f"{name!r} of checkpoint {manifest.ref} points outside its folder", where=str(self.root))
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.open(manifest, name), path)

    def _manifest_path(self, stage: str, step: int) -> Path:
        return self.root / "manifests" / stage / f"{step:09d}.json"

    def _blob_path(self, digest: str) -> Path:
        return self.root / "blobs" / digest

    def _put_blob(self, source: Path) -> Blob:
        """Copies a file under its hash, unless it is there whole: a blob that rotted is put again."""
        digest = _hash(source)
        target = self._blob_path(digest)
        size = source.stat().st_size
        if not (target.is_file() and target.stat().st_size == size and _hash(target) == digest):
            with source.open("rb") as stream, _temporary(target.parent) as (temporary, out):
                while chunk := stream.read(CHUNK):
                    out.write(chunk)
                _flush(out)
                os.replace(temporary, target)
            _sync_folder(target.parent)
        return Blob(hash=digest, size=size)

    def _put_if_absent(self, path: Path, data: bytes) -> bool:
        """Creates a file with all its content at once; False when it exists."""
        with _temporary(path.parent) as (temporary, out):
            out.write(data)
            _flush(out)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        _sync_folder(path.parent)
        return True

    def _advance(self, stage: str, step: int) -> None:
        path = self.root / "latest" / stage
        with _locked(path.parent):  # between reading and writing, another process might advance it further
            newest = max([step, *self.steps(stage)])
            if _pointer(path) >= newest:
                return
            with _temporary(path.parent) as (temporary, out):
                out.write(str(newest).encode())
                _flush(out)
                os.replace(temporary, path)


def _repair(manifest: Path) -> str:
    return f"delete {manifest}, then `gog resume`: it goes on from the checkpoint before"


def open_store(uri: str) -> Store:
    """The store at a `file://` address. Raises UserError for another scheme or a place that cannot be written."""
    address = urlparse(uri)
    if address.scheme != "file":
        raise UserError(f"scheme {address.scheme!r} is not supported yet", where=uri, remedy="use file:///folder")
    root = Path(unquote(address.netloc + address.path)).absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _temporary(root):
            pass
    except OSError as error:
        raise unwritable(error, root) from None
    return Store(root)


@contextlib.contextmanager
def _temporary(folder: Path) -> Any:
    """(path, stream) of a new file in `folder`, removed at the end if it still stands."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield name, stream
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


@contextlib.contextmanager
def _locked(folder: Path) -> Any:
    """Holds a folder's lock, which ends with the process at the latest."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _pointer(path: Path) -> int:
    """The step a pointer names; -1 when it is absent or unreadable, for a pointer can always be made again."""
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return -1


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
