"""Images that the rows of a dump name or embed.

A dump is often looked at on another machine than the one that wrote it, where its absolute paths do not exist. So a path
is looked up as it is, then by its last parts below the folder of the dump and the folders that the user names:
`/data/run/images/7.png` is found as `images/7.png` or `7.png`. Nothing is fetched, and only regular files are read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from gog import images
from gog.dataset.foreign import embedded, values
from gog.errors import UserError

FIELDS = (
    "image",
    "images",
    "image_path",
    "image_paths",
    "image_file",
    "img_path",
    "image_url",
    "image_urls",
    "multi_modal_data",
)
"""Fields of rows that hold images."""
LARGEST = 64 << 20
"""Bytes of an image file at most."""
LONGEST = 1024
"""Characters of a path or URL at most; a longer text embeds an image."""


def of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The images of a row in order, by name, as the row has them."""
    found = [each for field in FIELDS for each in _each(record.get(field))]
    return {name(each): each for each in found}


def name(value: Any) -> str:
    """The name of an image in a trajectory: a hash of what the row has, 32 hex digits."""
    return hashlib.blake2b(repr(value).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def png(value: Any, folders: Sequence[Path]) -> bytes | None:
    """The PNG bytes of an image as a row has it; None where it is missing, damaged or none.

    Args:
        value: a path, a URL, a data URI, base64, or {bytes, path}.
        folders: where files are looked up.
    """
    try:
        data = _bytes(value, folders)
        return None if data is None else images.decode(data).png
    except (UserError, OSError):
        return None


def _each(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping) and isinstance(value.get("image") or value.get("images"), list):
        value = value.get("image") or value.get("images")  # multi_modal_data
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str | Mapping) and not values.is_missing(each):
            yield each


def _bytes(value: Any, folders: Sequence[Path]) -> bytes | None:
    if isinstance(value, Mapping) and isinstance(value.get("path"), str) and values.is_missing(value.get("bytes")):
        value = value["path"]
    if isinstance(value, str) and len(value) <= LONGEST and not value.startswith("data:"):
        found = find(value, folders)
        return found.read_bytes() if found else None
    data = embedded.image(value, "image", embedded.Places((), by_user=False))
    return data if isinstance(data, bytes) else None


def find(text: str, folders: Sequence[Path]) -> Path | None:
    """The file that a path or URL of a dump names; None if there is none."""
    parts = urlsplit(text) if text.startswith(("http://", "https://", "file://")) else None
    pure = PurePosixPath(unquote(f"{parts.netloc}{parts.path}") if parts else text)
    if pure.is_absolute() and _is_image_file(Path(pure)):
        return Path(pure)
    steps = [step for step in pure.parts if step not in ("/", ".", "..")]
    tails = [Path(*steps[start:]) for start in range(len(steps))]
    tries = (Path(f"{folder / tail}{suffix}") for folder in folders for tail in tails for suffix in embedded.SUFFIXES)
    return next(filter(_is_image_file, tries), None)


def _is_image_file(path: Path) -> bool:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and 0 < found.st_size <= LARGEST
