"""Folders that are made once on a machine, however many of its processes ask for them."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from gog import locks
from gog.errors import unwritable


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the exclusive right to make a folder; the lock ends with the process at the latest.

    Raises:
        UserError: the parent folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(error, folder) from error
    with locks.held(handle):
        yield


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Makes a folder unless it exists. It appears whole; processes that ask meanwhile wait for the first.

    Args:
        folder: where it appears.
        make: fills a new path, which does not exist yet.

    Returns:
        `folder`.
    """
    with locked(folder):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
                fresh = Path(scratch) / folder.name
                make(fresh)
                fresh.rename(folder)
    return folder
