"""`gog index build DIR`: the embedding index of a folder of images.

Images are read one after the other, in the order of their names, and only a batch of them is in memory. Each batch is
appended to files below `building/` in the output folder, from which a build that was interrupted continues; when the
folder's files or the encoder have changed meanwhile, it begins anew. The finished files get names by their content, and
`index.json`, which is written last, replaces an earlier index at once.

Titles, captions, addresses and licences come from `metadata.jsonl` in the folder, where there is one, in the form that
image folders have on the Hugging Face Hub: an object on each line with `file_name` and further fields.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
import numpy as np
from pydantic import AliasChoices, ConfigDict, Field

from gog import finite_json, folders, images
from gog.dataset import jsonl
from gog.dataset.records import Record
from gog.errors import ServiceDown, UserError, unwritable
from gog_tools.fetch import text
from gog_tools.search import encoder as encoders
from gog_tools.search import index_file, nearest
from gog_tools.search.index_file import EncoderRecord, Entry, FileRecord, Manifest, Skipped
from gog_tools.serving import inputs

METADATA = "metadata.jsonl"
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
"""Names of files that count as images. What the decoder does not read is skipped by name, not overlooked."""
MAX_FILE = 256_000_000
"""Bytes of an image file; a larger one is skipped unread."""
MAX_TITLE, MAX_CAPTION, MAX_LICENSE = 200, 2_000, 200
BUILDING = "building"

Report = Callable[[str], None]


class Metadata(Record):
    """A line of `metadata.jsonl`. Other fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    file_name: str = Field(min_length=1, description="Path of the image below the folder.")
    title: str = Field("", description="What is shown as a result.")
    caption: str = Field("", validation_alias=AliasChoices("caption", "text"), description="Text about the image.")
    url: str = Field("", description="Address of its page.")
    license: str = Field("", validation_alias=AliasChoices("license", "licence"), description="Its licence.")


@dataclass(frozen=True)
class Begun:
    """How far an earlier build came."""

    done: int = 0
    """Files of the listing that it finished."""
    rows: int = 0
    """Vectors among them."""


def build(
    folder: Path,
    out: Path,
    encoder: encoders.Encoder,
    *,
    batch: int = 32,
    exact_limit: int = nearest.EXACT_LIMIT,
    report: Report = lambda _: None,
) -> Manifest:
    """Builds the index of a folder, or continues a build that was interrupted.

    Args:
        folder: images at any depth; hidden files and links are left out.
        out: the index folder; made if it does not exist.
        encoder: makes the vectors.
        batch: images in a forward pass.
        exact_limit: images up to which no graph is made.
        report: called with lines about the progress.

    Returns:
        The manifest of the index.

    Raises:
        UserError: no images, none of them readable, a wrong line of metadata, or a folder that cannot be written.
    """
    if not folder.is_dir():
        raise UserError("no such folder", where=str(folder), remedy="name a folder of images")
    try:
        listing, count = _listing(folder)
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(error.filename or folder)) from None
    if count == 0:
        raise UserError("no images", where=str(folder), remedy=f"files must end with {', '.join(SUFFIXES)}")
    if count > exact_limit:
        nearest.check_graphs()
    record = EncoderRecord(name=encoder.name, fingerprint=encoder.fingerprint, dimensions=encoder.dimensions)
    if (built := _up_to_date(out, record, listing, exact_limit)) is not None:
        report("is up to date")
        return built
    try:
        building = out / BUILDING
        building.mkdir(parents=True, exist_ok=True)
        begun = _resume(building, {"listing": listing, **record.model_dump(exclude={"name"})})
        if begun.done:
            report(f"continues after {begun.done:,} of {count:,} files")
        with _Appender(building, encoder, begun) as appender, _metadata(folder, building) as about:
            for number, name in enumerate(files(folder)):
                if number >= begun.done:
                    appender.add(_entry(folder, name, about), folder / name)
                if len(appender.waiting) >= batch:
                    appender.flush()
                    report(f"{number + 1:,} of {count:,} files")
        return _finish(building, out, record, listing, exact_limit, report)
    except OSError as error:
        raise unwritable(error, out) from error


def _up_to_date(out: Path, encoder: EncoderRecord, listing: str, exact_limit: int) -> Manifest | None:
    """The manifest of an index of the same files by the same encoder; None if there is none."""
    if not (out / index_file.MANIFEST).is_file():
        return None
    manifest = index_file.read_manifest(out)
    same = (manifest.listing, manifest.encoder.fingerprint) == (listing, encoder.fingerprint)
    if not same or ("graph" in manifest.files) != (manifest.images > exact_limit):
        return None
    index_file.verify(out, manifest)
    return manifest


def files(folder: Path) -> Iterator[str]:
    """Paths of the image files below a folder, in a fixed order. Memory: the largest single folder."""

    def below(at: Path, prefix: str) -> Iterator[str]:
        with os.scandir(at) as found:
            entries = sorted((each.name, each.is_dir(follow_symlinks=False), each.is_symlink()) for each in found)
        for name, is_folder, is_link in entries:
            if name.startswith(".") or is_link:
                continue
            if is_folder:
                yield from below(at / name, f"{prefix}{name}/")
            elif name.lower().endswith(SUFFIXES):
                yield prefix + name

    return below(folder, "")


def _listing(folder: Path) -> tuple[str, int]:
    """The hash of names, sizes and times of the image files and of their metadata, and the number of files."""
    digest, count = blake3.blake3(), 0
    with contextlib.suppress(FileNotFoundError):
        digest.update_mmap(folder / METADATA)
    for name in files(folder):
        about = (folder / name).stat()
        digest.update(f"\0{name}\0{about.st_size}\0{about.st_mtime_ns}".encode("utf-8", "surrogateescape"))
        count += 1
    return digest.hexdigest(length=16), count


@contextlib.contextmanager
def _metadata(folder: Path, building: Path) -> Iterator[sqlite3.Connection]:
    """The lines of `metadata.jsonl` by file name, in a database on disk. Raises UserError for a wrong line."""
    path = building / "metadata.sqlite"
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE about (file TEXT PRIMARY KEY, line TEXT) WITHOUT ROWID")
        if (folder / METADATA).is_file():
            lines = jsonl.read_lines(folder / METADATA, Metadata)
            database.execute("BEGIN")
            database.executemany(
                "INSERT OR REPLACE INTO about VALUES (?, ?)",
                ((each.file_name.removeprefix("./"), each.model_dump_json(exclude_defaults=True)) for each in lines),
            )
            database.execute("COMMIT")
        yield database


def _entry(folder: Path, name: str, about: sqlite3.Connection) -> Entry:
    """What is known about an image; without a title, its caption or its file's name."""
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    row = about.execute("SELECT line FROM about WHERE file = ?", (shown,)).fetchone()
    given = Metadata.model_validate_json(row[0]) if row else Metadata(file_name=shown)
    caption = text.clean(given.caption, MAX_CAPTION)
    stem = Path(shown).stem.replace("_", " ")
    title = text.clean(given.title or given.caption or stem, MAX_TITLE) or "untitled"
    license_ = text.clean(given.license, MAX_LICENSE)
    return Entry(file=shown, title=title, url=text.clean_url(given.url), caption=caption, license=license_)


def _resume(building: Path, what: Mapping[str, Any]) -> Begun:
    """How far a build of the same files by the same encoder came; files of any other build are removed."""
    begun, log, vectors = building / "begun.json", building / "log.jsonl", building / "vectors.f32"
    if not begun.is_file() or finite_json.loads(begun.read_bytes()) != dict(what):
        shutil.rmtree(building)
        building.mkdir()
        begun.write_text(finite_json.dumps(dict(what)), encoding="utf-8")
    log.touch()
    vectors.touch()
    size = what["dimensions"] * 4
    done, rows, end, stored = 0, 0, 0, vectors.stat().st_size // size
    with log.open("rb") as lines:
        for line in lines:
            is_row = line.startswith(_ROW)
            if not line.endswith(b"\n") or rows + is_row > stored:  # the rest was not written whole
                break
            done, rows, end = done + 1, rows + is_row, end + len(line)
    os.truncate(log, end)
    os.truncate(vectors, rows * size)
    return Begun(done, rows)


_ROW, _SKIPPED = b"+", b"-"
"""First byte of a line of the log: an Entry or a Skipped follows."""


class _Appender:
    """Appends vectors and a log, a batch at a time, each line after its vector."""

    def __init__(self, building: Path, encoder: encoders.Encoder, begun: Begun) -> None:
        self._encoder = encoder
        self._vectors, self._log = (building / "vectors.f32").open("ab"), (building / "log.jsonl").open("ab")
        self.waiting: list[tuple[Entry, encoders.Inputs | str]] = []

    def __enter__(self) -> _Appender:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.flush()
        self._vectors.close()
        self._log.close()

    def add(self, entry: Entry, path: Path) -> None:
        """Takes an image; one that cannot be read waits with the reason."""
        self.waiting.append((entry, self._prepared(path)))

    def _prepared(self, path: Path) -> encoders.Inputs | str:
        try:
            if path.stat().st_size > MAX_FILE:
                return f"more than {MAX_FILE:,} bytes"
            return self._encoder.prepare(images.read(path))
        except UserError as error:
            return error.what
        except OSError as error:
            return f"cannot read image: {error.strerror}"

    def flush(self) -> None:
        """Encodes what waits and writes it."""
        prepared = [each for _, each in self.waiting if not isinstance(each, str)]
        if prepared:
            self._vectors.write(self._encoder.encode(prepared).astype("<f4").tobytes())
            self._vectors.flush()
        for entry, found in self.waiting:
            refused = isinstance(found, str)
            line = Skipped(file=entry.file, reason=str(found)) if refused else entry
            self._log.write((_SKIPPED if refused else _ROW) + line.model_dump_json().encode() + b"\n")
        self._log.flush()
        self.waiting.clear()


def _finish(
    building: Path, out: Path, encoder: EncoderRecord, listing: str, exact_limit: int, report: Report
) -> Manifest:
    """Gives the files their names and writes the manifest."""
    counts = {"entries": 0, "skipped": 0}
    with (
        (building / "log.jsonl").open("rb") as log,
        (building / "entries").open("wb") as entries,
        (building / "skipped").open("wb") as skipped,
    ):
        for line in log:
            kind, target = ("entries", entries) if line.startswith(_ROW) else ("skipped", skipped)
            target.write(line[1:])
            counts[kind] += 1
            if kind == "skipped":
                found = Skipped.model_validate_json(line[1:])
                report(f"skipped {found.file}: {found.reason}")
    if not counts["entries"]:
        raise UserError("none of the images can be read", where=str(out), remedy="see the names above")
    made = {"vectors": building / "vectors.f32", "entries": building / "entries", "skipped": building / "skipped"}
    if counts["entries"] > exact_limit:
        report("builds the approximate index")
        made["graph"] = building / "graph"
        shape = (counts["entries"], encoder.dimensions)
        nearest.build_graph(np.memmap(made["vectors"], "<f4", "r", shape=shape), made["graph"])
    records = {kind: index_file.record(path) for kind, path in made.items()}
    manifest = Manifest.of(encoder, records, images=counts["entries"], skipped=counts["skipped"], listing=listing)
    _commit(out, made, records, manifest)
    return manifest


def _commit(out: Path, made: Mapping[str, Path], records: Mapping[str, FileRecord], manifest: Manifest) -> None:
    """Moves the files to their names, writes the manifest, and removes files of an earlier index."""
    for kind, path in made.items():
        path.replace(out / index_file.file_name(kind, records[kind].hash))
    index_file.write_manifest(out, manifest)
    current = {index_file.file_name(kind, record.hash) for kind, record in records.items()}
    for kind, suffix in index_file.SUFFIXES.items():
        for path in out.glob(f"{kind}-*{suffix}"):
            if path.name not in current:
                path.unlink()
    shutil.rmtree(out / BUILDING)


def main(argv: list[str]) -> int:
    """`gog index build`. Returns the exit code."""
    parser = argparse.ArgumentParser("gog index build", description="Build the embedding index of a folder of images.")
    parser.add_argument("folder", metavar="DIR", help=f"images at any depth; {METADATA} in it names titles")
    parser.add_argument("--encoder", required=True, metavar="MODEL", help="folder, s3:// or hf://org/name")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the index; a build that stopped is continued")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="type of the weights")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images in a pass (default: 32)")
    parser.add_argument(
        "--exact-limit",
        type=int,
        default=nearest.EXACT_LIMIT,
        metavar="N",
        help=f"images up to which search is exact (default: {nearest.EXACT_LIMIT:,}); more need usearch",
    )
    parser.add_argument("--store", metavar="JSON", help="options for reading s3://")
    try:
        given = parser.parse_args(argv)
    except SystemExit as end:  # argparse has printed why
        return int(end.code or 0)
    try:
        manifest = _build(given)
    except UserError as error:
        print(f"gog index build: {error.sentence()}", file=sys.stderr)
        return 2
    except (ServiceDown, ConnectionError) as error:
        print(f"gog index build: {error}", file=sys.stderr)
        return 1
    print(f"{given.out}: {manifest.images:,} images, {manifest.skipped:,} skipped, hash {manifest.hash}")
    print(f"encoder {manifest.encoder.name} (fingerprint {manifest.encoder.fingerprint})")
    return 0


def _build(given: argparse.Namespace) -> Manifest:
    for name in ("batch_size", "exact_limit"):
        if getattr(given, name) < 1:
            raise UserError("must be at least 1", where=f"--{name.replace('_', '-')}")
    store = inputs.store_spec(given.store) if given.store is not None else None

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    out = Path(given.out)
    with folders.locked(out), tempfile.TemporaryDirectory(prefix="gog-index-") as scratch:
        encoder = encoders.load(
            given.encoder, store=store, scratch=Path(scratch), device=given.device, dtype=given.dtype
        )
        return build(
            Path(given.folder), out, encoder, batch=given.batch_size, exact_limit=given.exact_limit, report=report
        )
