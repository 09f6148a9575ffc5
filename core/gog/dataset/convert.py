"""A dataset in another format as a folder in gog's own.

Stages, tool servers and stores read gog's own form only: one form to pack and to resume from. The conversion copies each
image once, named by the hash of its file, so a reader may be slow and is never needed again.
"""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from gog import folders
from gog.dataset import formats, jsonl
from gog.errors import UserError, unwritable

IMAGES = "images"
_MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}


def as_folder(path: Path, format: str | None, target: Path) -> Path:
    """A dataset as a folder in gog's own form, converted if it is in another.

    Args:
        path: file or folder, as the user gave it.
        format: name of its format; None: recognised by content.
        target: folder for a converted dataset, to whose name a digest of what is converted is added; kept if it exists.

    Returns:
        `path` itself if it has gog's own form, else the folder of the conversion.

    Raises:
        UserError: the first row that cannot be read, or the target cannot be written.
    """
    reader = formats.find(path, format)
    if type(reader) is type(formats.load(formats.OWN)):
        return path
    made = target.with_name(f"{target.name}-{_state(path, format)}")
    return folders.once(made, lambda fresh: convert(reader, path, fresh))


def _state(path: Path, format: str | None) -> str:
    """A digest that changes with the files of a dataset, in hex: of their names, sizes and times. Of a folder it does not
    cover the folders inside, where images are."""
    files = [path] if path.is_file() else sorted(each for each in path.iterdir() if each.is_file())
    states = [(str(each.absolute()), each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    return blake3(repr((format, states)).encode()).hexdigest(length=8)


def convert(reader: formats.Reader, path: Path, folder: Path) -> None:
    """Writes all splits of a dataset to a new folder. Raises UserError as `as_folder`."""
    try:
        (folder / IMAGES).mkdir(parents=True)
        for split in reader.splits(path):
            lines = []
            for row in formats.read(reader, path, split):
                if isinstance(row, UserError):
                    raise row
                name = add(folder, encoded(row))
                lines.append(row.question.model_copy(update={"image": name}))
            jsonl.write_lines(folder / f"{split}.jsonl", lines)
    except OSError as error:
        raise unwritable(error, folder) from error


def encoded(row: formats.Row) -> bytes:
    """The encoded image of a row. Raises UserError for a file that cannot be read."""
    if isinstance(row.image, bytes):
        return row.image
    try:
        return row.image.read_bytes()
    except OSError as error:
        raise UserError(f"image {row.question.image!r}: cannot read: {error.strerror}", where=row.where) from None


def add(folder: Path, data: bytes) -> str:
    """Writes an encoded image into the folder unless it is there; its name relative to the folder."""
    suffix = next((each for magic, each in _MAGIC.items() if data.startswith(magic)), ".bin")
    name = f"{IMAGES}/{blake3(data).hexdigest(length=16)}{suffix}"
    if not (folder / name).exists():
        temporary = folder / f"{name}.tmp"  # a kill must not leave half an image under its name
        temporary.write_bytes(data)
        temporary.replace(folder / name)
    return name
