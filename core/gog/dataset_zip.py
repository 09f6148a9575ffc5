"""A dataset folder as one file, which is how a store holds it, and back.

Ten thousand images would be ten thousand blobs; the checkpoint `data/<n>` holds one uncompressed zip instead,
`dataset.zip`. The same content gives the same bytes on every machine. The zip may come from a stranger, so unpacking
trusts nothing: no path leaves the folder, no links, nothing larger unpacked than the file itself.

Packing follows links, because images are often a linked folder, and refuses what it could not give back. It does not
check lines and images: that is `gog.dataset.check`.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from gog import folders, mounts, store
from gog.errors import UserError, unwritable
from gog.spec import StoreSpec

KEY, FILE = "data", "dataset.zip"
"""Key of a dataset in a store, and the name of its only file."""
MAX_ENTRIES = 5_000_000
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can hold: equal content gives equal bytes on any day."""


def pack(folder: Path, path: Path, needed: Iterable[str] = ()) -> int:
    """Packs the files of a folder; the zip appears whole or not at all.

    Hidden files are left out unless they are needed. Linked files and folders are packed as what they link to.

    Args:
        folder: the dataset folder.
        path: the zip to write.
        needed: paths relative to the folder, such as the images that its lines name.

    Returns:
        The number of files in the zip.

    Raises:
        UserError: the folder holds no files, a needed file is missing, a file cannot be read or has a name that cannot
            be unpacked, links form a loop, or the zip cannot be written.
    """
    wanted = {PurePosixPath(name).as_posix() for name in needed}
    names = sorted({name for name in _files(folder, "", ()) if not _hidden(name)} | wanted)
    if not names:
        raise UserError("no files to pack", where=str(folder), remedy="name a dataset folder")
    for name in names:
        if fault := _name_fault(name):
            raise UserError(f"{name!r} {fault}", where=str(folder), remedy="rename the file")
    temporary = path.with_suffix(path.suffix + ".tmp")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as made:
            for name in names:
                _add(made, folder, name)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(error, path) from error
    return len(names)


def _files(root: Path, below: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Regular files below `root/below`, relative to root. above: device and inode of the folders around."""
    here = root / below
    try:
        found = here.stat()
        entries = sorted(os.listdir(here))
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(here)) from None
    if (found.st_dev, found.st_ino) in above:
        raise UserError("links to a folder above itself", where=str(here), remedy="remove the link")
    for entry in entries:
        name = f"{below}/{entry}" if below else entry
        if (root / name).is_dir():
            if not entry.startswith("."):
                yield from _files(root, name, (*above, (found.st_dev, found.st_ino)))
        elif (root / name).is_file():
            yield name


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _add(made: zipfile.ZipFile, folder: Path, name: str) -> None:
    try:
        stream = (folder / name).open("rb")
    except OSError as error:
        raise UserError(f"{name!r}: cannot read: {error.strerror}", where=str(folder)) from None
    with stream:
        entry = zipfile.ZipInfo(name, _EPOCH)
        entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
        entry.file_size = os.fstat(stream.fileno()).st_size
        with made.open(entry, "w") as out:
            shutil.copyfileobj(stream, out, 1 << 20)


def unpack(path: Path, folder: Path) -> Path:
    """Unpacks a zip into a new folder, which appears whole or not at all.

    Returns:
        `folder`.

    Raises:
        UserError: the zip is torn or not safe, or the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path) as packed, tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
            target = Path(scratch) / "files"
            target.mkdir()
            for entry in _checked(packed, path):
                file = target / entry.filename
                file.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(entry) as stream, file.open("xb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
            target.rename(folder)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"not a packed dataset: {error}", where=str(path), remedy="publish the dataset again") from None
    except OSError as error:
        raise unwritable(error, folder) from error
    return folder


def _checked(packed: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The zip's files. Raises UserError naming the first that is refused, and why."""
    entries = [entry for entry in packed.infolist() if not entry.is_dir()]
    fault = next((f"{entry.filename!r} {why}" for entry in entries if (why := _fault(entry))), "")
    if len(entries) > MAX_ENTRIES:
        fault = f"{len(entries)} files are more than {MAX_ENTRIES}"
    elif len({entry.filename for entry in entries}) < len(entries):
        fault = "a name occurs twice"
    elif not fault and sum(entry.file_size for entry in entries) > path.stat().st_size:
        fault = "its files together are larger than the zip"
    if fault:
        raise UserError(fault, where=str(path), remedy="pack the dataset with `gog move push`")
    return entries


def _fault(entry: zipfile.ZipInfo) -> str:
    if fault := _name_fault(entry.filename):
        return fault
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1:
        return "is compressed or encrypted"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a device"
    return ""


def _name_fault(name: str) -> str:
    """Why a file of this name is neither packed nor unpacked; empty if it is."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or pure.as_posix() != name:
        return "is not a plain path inside the dataset"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is not a UTF-8 name"
    return ""


def fetch_dataset(uri: str, options: StoreSpec | None, folder: Path) -> Path:
    """The dataset at an address, as a folder or file on this machine.

    Args:
        uri: of a store that holds a dataset (s3:// or file://), file:// of the dataset itself, or a volume's.
        options: of the run's store, which hold for `uri` too.
        folder: where a dataset from a store is unpacked, once; a digest of its content is added to the name.

    Returns:
        The folder that it was unpacked into, or the path that a file:// address names.

    Raises:
        UserError: the store holds no dataset, or one that is torn or not safe.
        store.Unavailable: the store does not answer.
    """
    if (mounted := mounts.folder(uri)) is not None:
        return mounted
    address = urlparse(uri)
    if address.scheme == "file":
        plain = Path(unquote(address.netloc + address.path))
        if not (plain / "manifests" / KEY).is_dir():
            return plain
    where = StoreSpec(uri=uri) if options is None else options.model_copy(update={"uri": uri})
    opened = store.open_store(where)
    newest = opened.latest(KEY)
    if newest is None:
        raise UserError("the store holds no dataset", where=uri, remedy="`gog move push FOLDER URI` publishes one")
    target = folder.with_name(f"{folder.name}-{newest.files[FILE].hash[:16]}")
    return folders.once(target, lambda fresh: unpack(opened.open(newest, FILE), fresh))
