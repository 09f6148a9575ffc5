"""The files of an embedding index: a folder with one vector and one line of text for each image.

`index.json` names the other files by their content, with sizes and hashes, so a folder either holds a whole index or
none: it is written last, and replaced at once by a later build. It names the encoder, whose vectors no other can search.

    index.json                  hash, encoder, number of images, and the files:
    vectors-<hash>.f32          [images, dimensions] float32, little-endian, each of length 1
    entries-<hash>.jsonl        an Entry for each image, in the same order
    skipped-<hash>.jsonl        a Skipped for each file that is no readable image
    graph-<hash>.usearch        the approximate index, where there are too many images for an exact search
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import blake3
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gog import validation
from gog.errors import UserError

MANIFEST = "index.json"
SUFFIXES = {"vectors": ".f32", "entries": ".jsonl", "skipped": ".jsonl", "graph": ".usearch"}
"""The files of an index by what they hold; `graph` may be absent."""
MAX_DIMENSIONS = 65_536
MAX_LINE = 100_000
"""Bytes of an entry: path, title, address, caption and licence."""


class Record(BaseModel):
    """Part of an index: immutable and without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Entry(Record):
    """An image that can be found."""

    file: str
    """Its path below the indexed folder."""
    title: str
    """What is shown as a result."""
    url: str = ""
    """Address of its page; empty where it has none."""
    caption: str = ""
    """Text about it; empty where there is none."""
    license: str = ""
    """Its licence; empty where it is not known."""


class Skipped(Record):
    """A file that was not indexed."""

    file: str
    """Its path below the indexed folder."""
    reason: str
    """Why it cannot be read."""


class EncoderRecord(Record):
    """The encoder that made the vectors."""

    name: str
    """What it was loaded from: a folder, `s3://…`, or `hf://org/name@commit`."""
    fingerprint: str
    """Of its configuration and weights."""
    dimensions: int = Field(ge=1, le=MAX_DIMENSIONS)
    """Length of its vectors."""


class FileRecord(Record):
    """A file of the index."""

    bytes: int = Field(ge=0)
    """Its size."""
    hash: str = Field(pattern=r"^[0-9a-f]{32}$")
    """blake3-128 of its content, which is also part of its name."""


class Manifest(Record):
    """Content of `index.json`."""

    version: Literal[1] = 1
    """Version of this format."""
    hash: str
    """blake3-128 of the encoder's fingerprint and of all files: equal indexes have equal hashes."""
    encoder: EncoderRecord
    """The encoder."""
    images: int = Field(ge=1)
    """Images that can be found."""
    skipped: int = Field(ge=0)
    """Files that were left out."""
    listing: str
    """Hash of names, sizes and times of the indexed files, and of their metadata; a build compares it."""
    files: Mapping[Literal["vectors", "entries", "skipped", "graph"], FileRecord]
    """The other files by what they hold."""

    @classmethod
    def of(cls, encoder: EncoderRecord, files: Mapping[str, FileRecord], **counts: int | str) -> Self:
        """The manifest of these files, with its hash."""
        digest = blake3.blake3(encoder.fingerprint.encode())
        for kind in sorted(set(files) - {"graph"}):  # the graph follows from the vectors, not bit for bit
            digest.update(f"\0{kind}\0{files[kind].hash}".encode())
        return cls.model_validate(
            {"hash": digest.hexdigest(length=16), "encoder": encoder, "files": dict(files), **counts}
        )

    def path(self, folder: Path, kind: Literal["vectors", "entries", "skipped", "graph"]) -> Path:
        """Where a file of the index is."""
        return folder / file_name(kind, self.files[kind].hash)


def file_name(kind: str, content: str) -> str:
    """Name of a file of an index, by what it holds and its hash."""
    return f"{kind}-{content}{SUFFIXES[kind]}"


def record(path: Path) -> FileRecord:
    """Size and hash of a file."""
    digest = blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(path)
    return FileRecord(bytes=path.stat().st_size, hash=digest.hexdigest(length=16))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index folder. Raises UserError."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        remedy = "make it with `gog index build`"
        raise UserError(f"no embedding index: {error.strerror}", where=str(path), remedy=remedy) from None
    except ValidationError as error:
        reason = validation.first_sentence(error)
        raise UserError(f"not an embedding index: {reason}", where=str(path), remedy="build it again") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest so that it appears whole, which commits the index."""
    temporary = folder / f".{MANIFEST}.{os.getpid()}.tmp"
    temporary.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / MANIFEST)


def verify(folder: Path, manifest: Manifest) -> None:
    """Raises UserError for a file that is missing or not as the manifest names it."""
    for kind, expected in manifest.files.items():
        path = manifest.path(folder, kind)
        try:
            found = record(path)
        except OSError as error:
            raise UserError(f"cannot read: {error.strerror}", where=str(path), remedy="copy the whole folder") from None
        if found != expected:
            raise UserError("its content has changed", where=str(path), remedy="copy the index anew, or build it again")
    size = manifest.images * manifest.encoder.dimensions * 4
    if manifest.files["vectors"].bytes != size:
        raise UserError(f"vectors of {manifest.files['vectors'].bytes:,} bytes, not {size:,}", where=str(folder))


def vectors(folder: Path, manifest: Manifest) -> np.ndarray:
    """The vectors [images, dimensions] float32, mapped from their file."""
    shape = (manifest.images, manifest.encoder.dimensions)
    return np.memmap(manifest.path(folder, "vectors"), "<f4", "r", shape=shape)


class Entries:
    """The lines of an index, mapped from their file; eight bytes of memory each."""

    def __init__(self, path: Path) -> None:
        """Checks every line, because an index may come from others.

        Args:
            path: of a file that `verify` accepted.

        Raises:
            UserError: a line is no Entry.
        """
        with path.open("rb") as stream:
            self._text = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            ends = [0]
            while line := stream.readline(MAX_LINE + 1):
                _check_line(line, f"{path}:{len(ends)}")
                ends.append(ends[-1] + len(line))
        self._ends = np.array(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> Entry:
        return Entry.model_validate_json(self._text[int(self._ends[row]) : int(self._ends[row + 1])])


def _check_line(line: bytes, where: str) -> None:
    """Raises UserError for a line that is no Entry, or a longer one than any build writes."""
    try:
        if len(line) > MAX_LINE:
            raise UserError(f"more than {MAX_LINE:,} bytes", where=where, remedy="build the index again")
        Entry.model_validate_json(line)
    except ValidationError as error:
        reason = validation.first_sentence(error)
        raise UserError(f"not an entry: {reason}", where=where, remedy="build the index again") from None
