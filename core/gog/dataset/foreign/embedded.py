"""The image of a row: embedded in it in one of the forms that exporters write, or a file that it names.

Embedded images come as binary, as base64 (also as a data URI), as a list of integers, or as the {bytes, path} of
Hugging Face. Named ones are looked up below the folder of the file and below the folder that the user gives for
images. Nothing is fetched, and no pickle is loaded, because loading one runs what it says.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from gog.dataset.foreign.values import Fault, is_missing, kind

SUFFIXES = ("", ".jpg", ".jpeg", ".JPEG", ".JPG", ".png", ".webp")
"""Endings that are tried for an image that is named without its own."""
PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
"""How pickles begin that Python has written since 2003."""
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")
_URLS = ("http://", "https://")


class Missing(Fault):
    """An image that a row names and that is not there.

    Attributes:
        name: as the row has it: a path or a URL.
    """

    def __init__(self, field: str, name: str, remedy: str) -> None:
        self.name = name
        super().__init__(field, f"image {name!r} is missing", remedy)


class Places:
    """Where images that a file names are looked up.

    Args:
        folders: searched in this order.
        by_user: whether the user gave one of them, which decides what a message suggests.
    """

    def __init__(self, folders: Sequence[Path], *, by_user: bool) -> None:
        self.folders, self.by_user = folders, by_user
        self._urls: dict[str, str] = {}
        self._below: dict[Path, list[Path]] = {}

    def find(self, name: str, field: str) -> Path:
        """The file of a named image.

        Raises:
            Missing: there is none.
            Fault: the name leaves the folders, or two URLs claim the same file.
        """
        if name.startswith(_URLS):
            return self._fetched(name, field)
        pure = PurePosixPath(name)
        if ".." in pure.parts:
            raise Fault(field, f"image {name!r} may lie outside the dataset folder")
        relative = pure.relative_to("/") if pure.is_absolute() else pure
        for folder in self.folders:
            if found := _file(folder / relative):
                return found
        remedy = "is the folder of images complete?" if self.by_user else "name the folder of images: --images FOLDER"
        raise Missing(field, name, remedy)

    def named(self, stem: str, field: str) -> Path:
        """The file of an image that is known by its name without ending, in a folder or one level below it."""
        for folder in self.folders:
            for each in (folder, *self._subfolders(folder)):
                if found := _file(each / stem):
                    return found
        raise Missing(field, stem, "unpack the images and name their folder: --images FOLDER")

    def _subfolders(self, folder: Path) -> list[Path]:
        if folder not in self._below:
            below = (each for each in os.scandir(folder) if each.is_dir()) if folder.is_dir() else ()
            self._below[folder] = sorted(Path(each.path) for each in below)
        return self._below[folder]

    def _fetched(self, url: str, field: str) -> Path:
        """The copy of an image at a URL, under host and path as `wget --force-directories` writes it, or under its name."""
        parts = urlsplit(url)
        path = unquote(parts.path).lstrip("/")
        if ".." in PurePosixPath(path).parts or not path:
            raise Fault(field, f"{url!r} names no file")
        for folder in self.folders:
            if found := _file(folder / parts.netloc / path) or _file(folder / path):
                return found
        name = PurePosixPath(path).name
        for folder in self.folders:
            if found := _file(folder / name):
                if self._urls.setdefault(name, url) != url:
                    raise Fault(field, f"two URLs end in {name!r}", "fetch them with `wget --force-directories`")
                return found
        raise Missing(field, url, "fetch the listed URLs once and name their folder: --images FOLDER")


def image(value: Any, field: str, places: Places) -> bytes | Path:
    """The encoded image of a row's field.

    Args:
        value: as the row has it.
        field: for messages.
        places: where named files are.

    Raises:
        Missing: a file that is not there.
        Fault: no image, several, or a form that is not read.
    """
    if isinstance(value, list | tuple) and not (value and all(type(each) is int for each in value)):
        present = [each for each in value if not is_missing(each)]
        if len(present) > 1:
            raise Fault(
                field, f"{len(present)} images; a question of gog is about one", "choose one, or remove the row"
            )
        value = present[0] if present else None
    if is_missing(value):
        raise Fault(field, "has no image")
    if isinstance(value, Mapping):
        return _of_struct(value, field, places)
    if isinstance(value, list | tuple):
        return _of_integers(value, field)
    if isinstance(value, bytes):
        return _checked(value, field)
    if not isinstance(value, str):
        raise Fault(field, f"is {kind(value)}, not an image")
    return _of_text(value.strip(), field, places)


def _of_struct(value: Mapping[str, Any], field: str, places: Places) -> bytes | Path:
    """Hugging Face's {bytes, path}, or OpenAI's {url}."""
    for name in ("bytes", "url", "path", "image_url", "image"):
        if not is_missing(value.get(name)):
            return image(value[name], f"{field}.{name}", places)
    raise Fault(field, "has neither bytes nor path")


def _of_integers(value: Sequence[int], field: str) -> bytes:
    try:
        return _checked(bytes(value), field)
    except ValueError:
        raise Fault(field, "a list of numbers that are not bytes") from None


def _of_text(value: str, field: str, places: Places) -> bytes | Path:
    if value.startswith("data:"):
        head, _, body = value.partition(",")
        if not head.endswith(";base64"):
            raise Fault(field, "a data URI that is not base64")
        return _of_base64(body, field)
    # No path of a dataset is longer than this, and no image is smaller.
    if len(value) > 255 and not value.startswith(_URLS) and "." not in value[-6:]:
        return _of_base64(value, field)
    return places.find(value, field)


def _of_base64(value: str, field: str) -> bytes:
    try:
        return _checked(base64.b64decode("".join(value.split()), validate=True), field)
    except binascii.Error as error:
        raise Fault(field, f"not base64: {error}") from None


def _checked(data: bytes, field: str) -> bytes:
    if is_pickle(data):
        raise Fault(
            field, "a pickle, which gog does not load because it can run any program", "export it as PNG or JPEG"
        )
    if not data.startswith(_MAGIC):
        raise Fault(field, "not a PNG, JPEG or WEBP")
    return data


def is_pickle(head: bytes) -> bool:
    """Whether data begin as a pickle does."""
    return head.startswith(PICKLES)


def _file(path: Path) -> Path | None:
    """The path, with one of the usual endings if need be; None if there is no such file."""
    return next((found for suffix in SUFFIXES if os.path.isfile(found := Path(f"{path}{suffix}"))), None)
