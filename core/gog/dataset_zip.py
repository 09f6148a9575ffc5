"""A dataset folder as one file, as stores hold it, and back.

A checkpoint of ten thousand images would be ten thousand blobs; `data/<n>` holds one uncompressed zip instead,
`dataset.zip`, the same bytes for the same folder whoever packed it. It may come from a stranger, so unpacking trusts
nothing: no path leaves the folder, no links, nothing that weighs more unpacked than the file itself does.

A folder appears whole or not at all, and once, however many processes of a machine ask for it (`once`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from gog import locks, store
from gog.errors import UserError, unwritable
from gog.spec import StoreSpec

KEY, FILE = "data", "dataset.zip"
"""Under which key of a store a dataset is, and as which file."""
MAX_ENTRIES = 5_000_000
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold; a bundle is of its content, not of its day."""


def pack(folder: Path, path: Path) -> int:
    """Writes the files of a folder as a bundle, all or nothing; returns how many. Hidden files stay out. Raises
    UserError for a folder without files."""
    files = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    names = sorted(name.as_posix() for name in files if not any(part.startswith(".") for part in name.parts))
    if not names:
        raise UserError("no files to pack", where=str(folder), remedy="name a dataset folder")
    temporary = path.with_suffix(path.suffix + ".tmp")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as bundle:
            for name in names:
                _add(bundle, folder / name, name)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(error, path) from error
    return len(names)


def _add(bundle: zipfile.ZipFile, source: Path, name: str) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    entry.file_size = source.stat().st_size
    with source.open("rb") as stream, bundle.open(entry, "w") as out:
        shutil.copyfileobj(stream, out, 1 << 20)


def unpack(path: Path, folder: Path) -> Path:
    """A bundle's files in a new folder; whole or not at all. Raises UserError for a bundle that is torn or not safe."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path) as bundle, tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
            target = Path(scratch) / "files"
            target.mkdir()
            for entry in _checked(bundle, path):
                file = target / entry.filename
                file.parent.mkdir(parents=True, exist_ok=True)
                with bundle.open(entry) as stream, file.open("xb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
            target.rename(folder)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"not a dataset bundle: {error}", where=str(path), remedy="publish the dataset again") from None
    except OSError as error:
        raise unwritable(error, folder) from error
    return folder


def _checked(bundle: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The bundle's files. Raises UserError naming the first that is refused, and why."""
    entries = [entry for entry in bundle.infolist() if not entry.is_dir()]
    fault = next((f"{entry.filename!r} {why}" for entry in entries if (why := _fault(entry))), "")
    if len(entries) > MAX_ENTRIES:
        fault = f"{len(entries)} files are more than {MAX_ENTRIES}"
    elif len({entry.filename for entry in entries}) < len(entries):
        fault = "a name occurs twice"
    elif not fault and sum(entry.file_size for entry in entries) > path.stat().st_size:
        fault = "its files together are larger than it is"
    if fault:
        raise UserError(fault, where=str(path), remedy="pack the dataset with `gog move push`")
    return entries


def _fault(entry: zipfile.ZipInfo) -> str:
    name = PurePosixPath(entry.filename)
    if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or name.as_posix() != entry.filename:
        return "is not a plain path inside the bundle"
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1:
        return "is compressed or encrypted"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a device"
    return ""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the right to make a folder, which ends with the process at the latest. Raises UserError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(error, folder) from error
    with locks.held(handle):
        yield


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, made by `make(a new path)` unless it is there; processes that ask meanwhile wait for the first."""
    with locked(folder):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
                fresh = Path(scratch) / folder.name
                make(fresh)
                fresh.rename(folder)
    return folder


def fetch_dataset(uri: str, options: StoreSpec | None, folder: Path) -> Path:
    """The dataset folder at an address: fetched into `folder` from a store, s3:// or file://, that holds `data`; or the
    folder itself that a file:// address names. options: of the run's store, which hold for `uri` too. Raises UserError.
    """
    address = urlparse(uri)
    if address.scheme == "file":
        plain = Path(unquote(address.netloc + address.path))
        if not (plain / "manifests" / KEY).is_dir():
            return plain
    if folder.is_dir():
        return folder
    where = StoreSpec(uri=uri) if options is None else options.model_copy(update={"uri": uri})
    opened = store.open_store(where)
    newest = opened.latest(KEY)
    if newest is None:
        raise UserError("the store holds no dataset", where=uri, remedy="`gog move push FOLDER URI` puts one there")
    return once(folder, lambda fresh: unpack(opened.open(newest, FILE), fresh))
