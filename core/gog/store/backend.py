"""What a place must offer to be a checkpoint store: creating a key once, swapping a small one, and moving blobs.

A key is a path below the store's address (`manifests/sft/000000003.json`). Everything that makes a checkpoint whole or
absent is decided in `checkpoints.py` with these few operations; a backend decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from gog.store.model import Blob


class Unavailable(ConnectionError):
    """The store did not answer for as long as was tried. Nothing is wrong that a later try would not mend."""


class MissingBlob(Exception):
    """A blob that a manifest names is not there. Says where."""


class CorruptBlob(Exception):
    """A blob is there, with another content than its name says. Says where."""


@dataclass(frozen=True)
class Value:
    """A small object's content and the mark by which a swap recognises it."""

    data: bytes
    version: str


@dataclass(frozen=True)
class Entry:
    """A key that a listing found. size in bytes; modified by the clock of the store."""

    key: str
    size: int
    modified: datetime


class Backend(Protocol):
    """Raises Unavailable for network trouble, UserError for what a user can mend, OSError of the local disk."""

    def where(self, key: str = "") -> str:
        """A key's place as a user knows it."""

    def probe(self) -> None:
        """Raises UserError unless the place can be used as a store."""

    def read(self, key: str) -> Value | None:
        """None when there is no such key."""

    def put(self, key: str, data: bytes, content_type: str) -> None:
        """Writes, over what is there."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Creates a key with all its content at once; False when it exists."""

    def swap(self, key: str, data: bytes, expected: str | None) -> bool:
        """Writes if the key's version is the expected one (None: if it is absent); False when it is not."""

    def delete(self, key: str) -> None:
        """No error when it is absent."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Everything below a prefix that ends with a slash."""

    def folders(self, prefix: str) -> list[str]:
        """Names directly below a prefix that have something below themselves, sorted."""

    def put_blob(self, path: Path, blob: Blob) -> None:
        """Stores a file under its hash, unless it is there whole and young enough not to be swept meanwhile."""

    def open_blob(self, blob: Blob) -> Path:
        """A local file of the blob's content, verified, not to be written. Raises MissingBlob, CorruptBlob."""

    def fetch_blob(self, blob: Blob, target: Path) -> None:
        """Writes the blob's content, verified, to a new file. Raises MissingBlob, CorruptBlob; target may lie there."""

    def check_blob(self, blob: Blob) -> None:
        """Whether the blob is whole as far as the place can tell cheaply. Raises MissingBlob, CorruptBlob."""

    def copy_blob(self, source: Backend, blob: Blob) -> bool:
        """Copies from another backend inside the service; False where the two share none."""

    def remove_blob(self, digest: str, before: datetime) -> bool:
        """Deletes a blob unless it was put again since `before`."""

    def tidy(self, before: datetime) -> None:
        """Deletes what killed publications left besides blobs, if older."""
