"""Readers of the trajectories that other projects write. One project is one file of this package.

To add a project, add a module here with a class `Reader` that has the methods of the protocol below, and a sample row in
the module's docstring; nothing else changes. Which reader a path is for is recognised by its content.

A reader sees one row at a time. How rows are found, listed and shown is in `gog_console.viewer.foreign`.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from gog.trajectory import Trajectory

VERSION = 1
"""Increased when a reader makes something else of the same file, so that it is indexed again."""
DEEP = 3
"""Levels of folders below the one that the user names in which files are looked for."""
MOST = 100_000
"""Files that are looked at, at most."""


@dataclass(frozen=True)
class Played:
    """One row of a dump in gog's form."""

    trajectory: Trajectory
    """The episode. Its images are named by `gog_console.viewer.foreign.pictures.name`."""
    images: Mapping[str, Any] = field(default_factory=dict)
    """The images that the row names or embeds, by that name, as the row has them."""
    prompt: str = ""
    """What the model read before it began, with instructions."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """What else the row says, for people: name and value."""


class Reader(Protocol):
    """Reads the dumps of one project."""

    def has(self, file: Path) -> bool:
        """Whether a file is a dump of the project. Reads little; raises nothing for any content."""
        ...

    def step(self, file: Path) -> int:
        """The training step that a file is of, by its name; 0 where it has none."""
        ...

    def played(self, record: Mapping[str, Any], file: Path) -> Played:
        """A row in gog's form. Raises gog.dataset.foreign.values.Fault, which names the field, for one that is damaged."""
        ...


def names() -> list[str]:
    """Names of the readers, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Reader:
    """A reader by its name."""
    return cast(Reader, importlib.import_module(f"{__name__}.{name}").Reader())


def files(reader: Reader, path: Path) -> list[Path]:
    """The files of a dump: the path itself, or those of a folder, in the order of their steps and names."""
    found = [file for file in itertools.islice(_below(path, DEEP), MOST) if reader.has(file)]
    return sorted(found, key=lambda file: (str(file.parent), reader.step(file), file.name))


def recognise(path: Path) -> str:
    """Name of the reader that has a file at a path; empty if none has."""
    looked_at = list(itertools.islice(_below(path, DEEP), MOST))
    return next((name for name in names() if any(map(load(name).has, looked_at))), "")


def _below(path: Path, levels: int) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        for each in sorted(path.iterdir()):
            if not each.name.startswith(".") and (levels or each.is_file()):
                yield from _below(each, levels - 1)
