"""`gog index build DIR`: the embedding index of a folder of images.

Images are read one after the other, in the order of their names, and only a batch of them is in memory. Each batch is
appended to files below `building/` in the output folder, from which a build that was interrupted continues; when the
folder's files or the encoder have changed meanwhile, it begins anew. The finished files get names by their content, and
`index.json`, which is written last, replaces an earlier index at once. An index by another encoder is replaced only when
that is asked for, because the servers that use it know the encoder by name.

Titles, captions, addresses and licences come from the folder's `metadata.jsonl` (index_metadata).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
import numpy as np
from pydantic import ValidationError

from gog import finite_json, images, wording
from gog.errors import UserError, unwritable
from gog_tools.search import encoder as encoders
from gog_tools.search import index_file, index_metadata, nearest
from gog_tools.search.index_file import EncoderRecord, Entry, FileRecord, Manifest, Skipped

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
"""Names of files that count as images. What the decoder does not read is skipped by name, not overlooked."""
MAX_FILE = 256_000_000
"""Bytes of an image file; a larger one is skipped unread."""
BUILDING = "building"

Report = Callable[[str], None]


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
    replace: bool = False,
    report: Report = lambda _: None,
) -> Manifest:
    """Builds the index of a folder, or continues a build that was interrupted.

    Args:
        folder: images at any depth; hidden files and links are left out.
        out: the index folder; made if it does not exist.
        encoder: makes the vectors.
        batch: images in a forward pass.
        exact_limit: images up to which no graph is made.
        replace: whether an index by another encoder may be replaced.
        report: called with lines about the progress.

    Returns:
        The manifest of the index.

    Raises:
        UserError: no images, none of them readable, a wrong line of metadata, an index by another encoder, or a folder that
            cannot be written.
    """
    check(folder, exact_limit)
    listing, count = _listing(folder)
    record = EncoderRecord(name=encoder.name, fingerprint=encoder.fingerprint, dimensions=encoder.dimensions)
    if (built := _existing(out, report)) is not None:
        if not replace:
            _require_encoder(built, record, out)
        if _is_up_to_date(built, record, listing, exact_limit):
            report("is up to date")
            return built
        report(f"replaces an index of {wording.plural(built.images, 'image')}, made of other files or settings")
    try:
        building = out / BUILDING
        building.mkdir(parents=True, exist_ok=True)
        begun = _resume(building, {"listing": listing, **record.model_dump(exclude={"name"})}, report)
        if begun.done:
            report(f"continues after {begun.done:,} of {count:,} files")
        with (
            index_metadata.opened(folder, files(folder), building, report) as about,
            _Appender(building, encoder, begun) as appender,
        ):
            for number, name in enumerate(files(folder)):
                if number >= begun.done:
                    appender.add(about.entry(name), folder / name)
                if len(appender.waiting) >= batch:
                    appender.flush()
                    report(f"{number + 1:,} of {count:,} files")
        return _finish(building, out, record, listing, exact_limit, report)
    except OSError as error:
        raise unwritable(error, out) from error


def check(folder: Path, exact_limit: int) -> None:
    """What can be refused before an encoder is fetched and loaded.

    Args:
        folder: the images.
        exact_limit: images up to which no graph is made.

    Raises:
        UserError: no such folder, no images in it, or too many of them without usearch.
    """
    if not folder.is_dir():
        raise UserError("no such folder", where=str(folder), remedy="name a folder of images")
    try:
        count = sum(1 for _ in files(folder))
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(error.filename or folder)) from None
    if count == 0:
        raise UserError("no images", where=str(folder), remedy=f"files must end with {', '.join(SUFFIXES)}")
    if count > exact_limit:
        nearest.check_graphs(exact_limit)


def _existing(out: Path, report: Report) -> Manifest | None:
    """The manifest of the index that a folder holds; None where there is none, or a damaged one, which is reported."""
    if not (out / index_file.MANIFEST).is_file():
        return None
    try:
        manifest = index_file.read_manifest(out)
        index_file.verify(out, manifest)
    except UserError as error:
        report(f"replaces a damaged index: {error.where}: {error.what}")
        return None
    return manifest


def _require_encoder(built: Manifest, encoder: EncoderRecord, out: Path) -> None:
    """Raises UserError for an index by another encoder."""
    if built.encoder.fingerprint != encoder.fingerprint:
        raise UserError(
            f"holds an index by the encoder {built.encoder.name} (fingerprint {built.encoder.fingerprint}), not by "
            f"{encoder.name} ({encoder.fingerprint})",
            where=str(out),
            remedy="name another --out, or give --replace",
        )


def _is_up_to_date(built: Manifest, encoder: EncoderRecord, listing: str, exact_limit: int) -> bool:
    """Whether an index is of the same files, by the same encoder, and with a graph if there shall be one."""
    same = (built.listing, built.encoder.fingerprint) == (listing, encoder.fingerprint)
    return same and ("graph" in built.files) == (built.images > exact_limit)


def is_source(name: str) -> bool:
    """Whether a build reads a file, by its path below the folder: an image, or the metadata."""
    hidden = any(part.startswith(".") for part in name.split("/"))
    return name == index_metadata.FILE or (not hidden and name.lower().endswith(SUFFIXES))


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
        digest.update_mmap(folder / index_metadata.FILE)
    for name in files(folder):
        about = (folder / name).stat()
        digest.update(f"\0{name}\0{about.st_size}\0{about.st_mtime_ns}".encode("utf-8", "surrogateescape"))
        count += 1
    return digest.hexdigest(length=16), count


def _resume(building: Path, what: Mapping[str, Any], report: Report) -> Begun:
    """How far a build of the same files by the same encoder came; files of any other build are removed."""
    begun, log, vectors = building / "begun.json", building / "log.jsonl", building / "vectors.f32"
    if _begun(begun) != dict(what):
        if log.is_file():
            report("begins anew, because the unfinished build was of other files or of another encoder")
        shutil.rmtree(building)
        building.mkdir()
        written = begun.with_suffix(".tmp")
        written.write_text(finite_json.dumps(dict(what)), encoding="utf-8")
        written.replace(begun)
    log.touch()
    vectors.touch()
    size = what["dimensions"] * 4
    done, rows, end, stored = 0, 0, 0, vectors.stat().st_size // size
    with log.open("rb") as lines:
        for line in lines:
            is_row = line.startswith(_ROW)
            if not _is_whole(line) or rows + is_row > stored:  # the rest was not written, or is damaged
                break
            done, rows, end = done + 1, rows + is_row, end + len(line)
    os.truncate(log, end)
    os.truncate(vectors, rows * size)
    return Begun(done, rows)


def _begun(path: Path) -> Any:
    """What a build that began here is of; None if none did, or that is not known any more."""
    try:
        return finite_json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def _is_whole(line: bytes) -> bool:
    """Whether a line of the log was written whole."""
    kinds: dict[bytes, type[index_file.Record]] = {_ROW: Entry, _SKIPPED: Skipped}
    kind = kinds.get(line[:1])
    try:
        return kind is not None and line.endswith(b"\n") and kind.model_validate_json(line[1:]) is not None
    except ValidationError:
        return False


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
