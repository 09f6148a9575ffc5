"""The names that lines give to images: paths below the dataset folder, so that they work wherever the folder goes."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from gog.errors import UserError

RELATIVE = "give its path relative to the dataset folder"


def error(folder: Path, name: str, where: str) -> UserError | None:
    """The error to report for an image's name: it leaves the folder, or there is no such file. None if it is usable.

    Links inside the folder may lead out of it: a user makes them on purpose, and a packed dataset holds none.
    """
    pure = PurePosixPath(name)
    if "://" in name:
        return UserError(f"image {name!r} is a URL", where=where, remedy=f"download it; {RELATIVE}")
    if pure.is_absolute():
        return UserError(f"image {name!r} is an absolute path", where=where, remedy=RELATIVE)
    if ".." in pure.parts:
        return UserError(f"image {name!r} may lie outside the dataset folder", where=where, remedy=RELATIVE)
    if not os.path.isfile(folder / name):  # unlike Path.is_file, no error for a name that is too long
        return UserError(f"image {name!r} is missing", where=where)
    return None
