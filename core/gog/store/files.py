"""A store in a folder. A hard link commits a manifest; a lock makes compare-and-swap atomic.

Everything is written to a hidden file beside its place, synced and renamed, so that no reader sees a part of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gog import locks, metrics
from gog.errors import unwritable
from gog.store import hashing
from gog.store.backend import Backend, CorruptBlob, Entry, MissingBlob, Value
from gog.store.model import Blob

CHUNK = 1 << 20
"""Bytes that are copied at once."""


class FileBackend:
    """Backend over a folder, which is created when something is first written."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def where(self, key: str = "") -> str:
        return str(self.root / key)

    def probe(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with _temporary(self.root):
                pass
        except OSError as error:
            raise unwritable(error, self.root) from None

    def read(self, key: str) -> Value | None:
        try:
            data = (self.root / key).read_bytes()
        except FileNotFoundError:
            return None
        return Value(data, data.decode("latin-1"))

    def put(self, key: str, data: bytes, content_type: str) -> None:
        path = self.root / key
        with _temporary(path.parent) as (temporary, out):
            out.write(data)
            _flush(out)
            os.replace(temporary, path)
        _sync_folder(path.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self.root / key
        with _temporary(path.parent) as (temporary, out):
            out.write(data)
            _flush(out)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        _sync_folder(path.parent)
        return True

    def swap(self, key: str, data: bytes, expected: str | None) -> bool:
        with _locked((self.root / key).parent):  # another process might write between reading and writing
            found = self.read(key)
            if (found.version if found else None) != expected:
                return False
            self.put(key, data, "")
        return True

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def delete_all(self, prefix: str) -> None:
        shutil.rmtree(self.root / prefix, ignore_errors=True)

    def entries(self, prefix: str) -> Iterator[Entry]:
        for path in sorted((self.root / prefix).rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if not path.name.startswith(".") and path.is_file():
                    found = path.stat()
                    yield Entry(str(path.relative_to(self.root)), found.st_size, _time(found.st_mtime))

    def folders(self, prefix: str) -> list[str]:
        folder = self.root / prefix
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def put_blob(self, path: Path, blob: Blob) -> None:
        target = self.root / blob.key
        if target.is_file() and hashing.is_of(target, blob) and self._keep(target):
            return
        with path.open("rb") as stream, _temporary(target.parent) as (temporary, out):
            while chunk := stream.read(CHUNK):
                out.write(chunk)
            _flush(out)
            os.replace(temporary, target)
        _sync_folder(target.parent)
        metrics.record_store_bytes(blob.size)

    def _keep(self, target: Path) -> bool:
        """Renews a blob's time, so that it is not swept. False if it was deleted meanwhile."""
        with _locked(target.parent), contextlib.suppress(FileNotFoundError):
            os.utime(target)
            return True
        return False

    def open_blob(self, blob: Blob) -> Path:
        self.check_blob(blob)
        return self.root / blob.key

    def fetch_blob(self, blob: Blob, target: Path) -> None:
        shutil.copyfile(self.open_blob(blob), target)
        metrics.record_store_bytes(blob.size)

    def check_blob(self, blob: Blob) -> None:
        path = self.root / blob.key
        if not path.is_file():
            raise MissingBlob(str(path))
        if not hashing.is_of(path, blob):
            raise CorruptBlob(str(path))

    def copy_blob(self, source: Backend, blob: Blob) -> bool:
        return False

    def remove_blob(self, digest: str, before: datetime) -> bool:
        path = self.root / "blobs" / digest
        with _locked(path.parent):
            if not path.is_file() or _time(path.stat().st_mtime) >= before:
                return False
            path.unlink()
        return True

    def tidy(self, before: datetime) -> None:
        for path in self.root.rglob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if _time(path.stat().st_mtime) < before:
                    path.unlink()


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@contextlib.contextmanager
def _temporary(folder: Path) -> Any:
    """Path and stream of a new hidden file in a folder; removed at the end unless it was renamed."""
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
    """Holds a folder's lock; it ends with the process at the latest."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    with locks.held(handle):
        yield


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
