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
    path = folder.parent / f".{folder.name}.lock"
    while True:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise unwritable(error, folder) from error
        with locks.held(handle):
            if not _is_at(handle, path):  # its holder has removed it: others lock the file that replaced it
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one that a path names."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


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
