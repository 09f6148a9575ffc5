"""Operations that a checkpoint store needs: creating a key once, compare-and-swap of a small object, moving blobs.

A key is a path below the store's address (`manifests/sft/000000003.json`). `checkpoints.py` publishes
checkpoints atomically with these operations alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from gog.store.model import Blob


class Unavailable(ConnectionError):
    """The store did not answer within the retry budget. A later attempt may succeed."""


class MissingBlob(Exception):
    """A blob that a manifest names does not exist. The message is its address."""


class CorruptBlob(Exception):
    """A blob does not have the content that its name promises. The message is its address."""


@dataclass(frozen=True)
class Value:
    """A small object, as it was read."""

    data: bytes
    """Its content."""
    version: str
    """What `swap` compares: an ETag, or the content itself."""


@dataclass(frozen=True)
class Entry:
    """An object in a listing."""

    key: str
    """Relative to the store's address."""
    size: int
    """In bytes."""
    modified: datetime
    """By the clock of the store."""


class Backend(Protocol):
    """Storage of one kind.

    Every method raises Unavailable when the network or the server fails, UserError for what a user can correct, and
    OSError for the local disk.
    """

    def where(self, key: str = "") -> str:
        """Address of a key, for messages."""

    def probe(self) -> None:
        """Raises UserError unless it can be used as a store."""

    def read(self, key: str) -> Value | None:
        """The object at a key; None if there is none."""

    def put(self, key: str, data: bytes, content_type: str) -> None:
        """Writes an object and replaces one that exists."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Creates an object atomically. False if the key exists."""

    def swap(self, key: str, data: bytes, expected: str | None) -> bool:
        """Compare-and-swap: writes if the key has the expected version (None: does not exist). False if it does not."""

    def delete(self, key: str) -> None:
        """Deletes an object if it exists."""

    def delete_all(self, prefix: str) -> None:
        """Deletes all objects below a prefix, which ends with a slash."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects below a prefix, which ends with a slash."""

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below a prefix, sorted."""

    def put_blob(self, path: Path, blob: Blob) -> None:
        """Stores a file under its hash, unless it exists whole and is too young to be swept."""

    def open_blob(self, blob: Blob) -> Path:
        """A local file with the blob's content, verified; read-only for callers. Raises MissingBlob, CorruptBlob."""

    def fetch_blob(self, blob: Blob, target: Path) -> None:
        """Writes the blob's content to a new file and verifies it. Raises MissingBlob, CorruptBlob; the file may remain."""

    def check_blob(self, blob: Blob) -> None:
        """Checks a blob as far as the backend can without reading it here. Raises MissingBlob, CorruptBlob."""

    def copy_blob(self, source: Backend, blob: Blob) -> bool:
        """Copies a blob from another backend on the server's side. False if that is not possible."""

    def remove_blob(self, digest: str, before: datetime) -> bool:
        """Deletes a blob that was last put before a time. False if it was put since, or does not exist."""

    def tidy(self, before: datetime) -> None:
        """Deletes the remains of killed publications other than blobs, if they are older than a time."""
