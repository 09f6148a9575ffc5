"""Readers of datasets as other projects publish them. One format is one file of this package.

To add a format, add a module here with a class `Reader` that has the methods of the protocol below, and a sample row in
the module's docstring; nothing else changes. The module's name, with `-` for `_`, is what `data.format` accepts. A
reader outside this package is named as `module:factory`.

Readers are in core, not in the recipes, because a dataset is checked before a run starts by the operator and by
`gog move push`, which import no recipes.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from gog.dataset.foreign import files, tables
from gog.dataset.records import Question
from gog.errors import UnreadableFile, UserError

OWN = "gog-jsonl"
"""The format that gog writes and that stages read."""
USUAL = {"train": "training", "test": "evaluation"}
"""The splits that stages read unless the manifest names others, and what reads them."""


@dataclass(frozen=True)
class Row:
    """One question of a dataset file."""

    where: str
    """File and line or row, as in `train.jsonl:3`; messages about the row start with it."""
    question: Question
    """The question in gog's form. Its `image` serves as a name in messages."""
    image: Path | bytes
    """The encoded image: a file, or its bytes where the dataset file embeds it."""


@dataclass(frozen=True)
class LeftOut:
    """A row that a format leaves out by its own rule, such as a question of MMSearch without an image."""

    where: str
    """File and row."""
    reason: str
    """The rule, in the words that the summary of an import counts it under."""


class Reader(Protocol):
    """Reads one dataset format. A path is a file or a folder, as the user gave it.

    A reader whose rows name image files may take `images`, the folder of these files, when it is created.
    """

    def detect(self, path: Path) -> bool:
        """Whether the content at a path has this format. Reads little; raises nothing for any content."""
        ...

    def splits(self, path: Path) -> tuple[str, ...]:
        """Names of the splits there, such as `train`."""
        ...

    def rows(self, path: Path, split: str) -> Iterator[Row | LeftOut | UserError]:
        """Every row of a split. For one that cannot be read: the error to report, with the row in its `where`."""
        ...


def names() -> list[str]:
    """Names of the formats in this package, sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def load(name: str, images: Path | None = None) -> Reader:
    """A reader by the name of its format, or as `module:factory`.

    Args:
        name: of the format.
        images: folder of the image files that rows name.

    Raises:
        UserError: there is none of this name, or it takes no folder of images.
    """
    own = f"{__name__}.{name.replace('-', '_')}:Reader"
    module, _, factory = (own if name in names() else name).partition(":")
    try:
        make = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        choices = f"{', '.join(names())}, or module:factory"
        raise UserError(f"no dataset format {name!r}: {error}", where="data.format", remedy=choices) from None
    if images is not None and "images" not in inspect.signature(make).parameters:
        raise UserError(f"format {name!r} takes no folder of images", where="--images", remedy="leave it out")
    return cast(Reader, make() if images is None else make(images=images))


def find(path: Path, name: str | None = None) -> Reader:
    """The reader for a path: the named one, else the only one that recognises the content.

    A folder that none recognises goes to the reader of gog's own format, whose errors name the missing file.

    Raises:
        UserError: there is no such format, or a file's format is not recognised, or several are.
    """
    return load(recognise(path) if name is None else name)


def recognise(path: Path) -> str:
    """The name of the format of a path.

    Raises:
        UserError: as `find`, and where no record can be read: for that reason.
    """
    tables.refuse_pickle(path)
    found = [each for each in names() if load(each).detect(path)]
    if OWN in found:  # whose rows are plain ones, too
        found = [each for each in found if each not in ("plain", "huggingface", OWN)] or [OWN]
    if len(found) > 1:
        raise UserError(f"may be of the formats {', '.join(found)}", where=str(path), remedy="name one of them")
    if found:
        return found[0]
    if load(OWN).splits(path):
        return OWN  # named as gog's splits are; its reader names every faulty line
    if (error := unreadable(path)) is not None:
        raise error
    if not path.is_file():
        return OWN
    raise UserError(
        "the format of the file is not recognised",
        where=str(path),
        remedy=f"set data.format: {', '.join(names())}, or module:factory",
    )


def unreadable(path: Path) -> UserError | None:
    """Why nothing can be read at a path: the error of its first file of which no record can be read; None if none is."""
    errors = (tables.unreadable(file) for file in files.of(path) if tables.is_table(file))
    return next((error for error in errors if error is not None), None)


def read(
    reader: Reader, path: Path, split: str, leave_out: Callable[[LeftOut], object] = lambda left: None
) -> Iterator[Row | UserError]:
    """The reader's rows of a split. Errors are added for an id that occurs twice and for a split without rows.

    Args:
        reader: of the dataset's format.
        path: the dataset.
        split: which rows.
        leave_out: called with each row that the format leaves out.
    """
    if missing := missing_splits(reader, path, [split]):
        yield no_splits(reader, path, missing)
        return
    ids: set[str] = set()
    empty = True
    for row in reader.rows(path, split):
        empty = False
        if isinstance(row, LeftOut):
            leave_out(row)
            continue
        if isinstance(row, Row) and row.question.id in ids:
            yield UserError(f"id {row.question.id!r} occurs twice", where=row.where, remedy="ids must be unique")
            continue
        if isinstance(row, Row):
            ids.add(row.question.id)
        yield row
    if empty:
        where = path / f"{split}.jsonl" if path.is_dir() else path
        yield UnreadableFile("no questions", where=str(where), remedy="give at least one line")


def missing_splits(reader: Reader, path: Path, wanted: Iterable[str]) -> list[str]:
    """Those of the wanted splits that a dataset does not have.

    Args:
        reader: of the dataset's format.
        path: the dataset.
        wanted: names of splits.

    Returns:
        Their names. None of a folder in gog's own form without any split, because its files are what is missing.
    """
    found = reader.splits(path)
    if not _is_own(reader):
        return [each for each in dict.fromkeys(wanted) if each not in found]
    return [each for each in dict.fromkeys(wanted) if found and not (path / f"{each}.jsonl").is_file()]


def no_splits(reader: Reader, path: Path, missing: Sequence[str]) -> UnreadableFile:
    """The error for all splits that a dataset does not have, with what to do.

    Args:
        reader: of the dataset's format.
        path: the dataset.
        missing: names of splits, as `missing_splits` gives them.
    """
    found = reader.splits(path)
    if not found:
        return UnreadableFile("no rows of the format", where=str(path), remedy="is it the right file or folder?")
    what = f"has no split {' or '.join(missing)}; it has {', '.join(found)}"
    other = next((each for each in found if each not in USUAL), None)
    if other is None:
        remedy = f"add {missing[0]}.jsonl" if _is_own(reader) else "is the file or folder complete?"
    else:
        command = "import with" if _is_own(reader) else f"gog import {_kind(reader)} {path} FOLDER"
        remedy = f"{command} --split {other}={missing[0]}"
    if "train" not in missing:
        remedy += ", or name another split in stages.evaluate"
    return UnreadableFile(what, where=str(path), remedy=remedy)


def _is_own(reader: Reader) -> bool:
    return type(reader) is type(load(OWN))


def _kind(reader: Reader) -> str:
    """What `gog import` calls the format of a reader, as far as that is known."""
    package, _, module = type(reader).__module__.rpartition(".")
    return module.replace("_", "-") if package == __name__ else "KIND"
