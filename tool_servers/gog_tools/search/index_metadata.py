"""What results show of indexed images: `metadata.jsonl` of their folder, as image folders on the Hugging Face Hub have it.

The lines are kept in a database on disk, because there may be millions. A line that is wrong ends the build. One that is
right but has no effect (it names no image of the folder, or a field that is not read) is reported before images are
encoded, because a misspelt name would otherwise show in the results only.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pydantic import AliasChoices, ConfigDict, Field

from gog import wording
from gog.dataset import jsonl
from gog.dataset.records import Record
from gog.errors import UserError
from gog_tools.fetch import text
from gog_tools.search.index_file import Entry

FILE = "metadata.jsonl"
MAX_TITLE, MAX_CAPTION, MAX_LICENSE = 200, 2_000, 200
_SHOWN = 3
"""Names that a report lists."""
_MAX_UNREAD = 20
"""Distinct fields that are not read and yet remembered."""


class Metadata(Record):
    """A line of `metadata.jsonl`. Other fields are not read."""

    model_config = ConfigDict(extra="allow", frozen=True)

    file_name: str = Field(min_length=1, description="Path of the image below the folder.")
    title: str = Field("", description="What is shown as a result.")
    caption: str = Field("", validation_alias=AliasChoices("caption", "text"), description="Text about the image.")
    url: str = Field("", description="Address of its page.")
    license: str = Field("", validation_alias=AliasChoices("license", "licence"), description="Its licence.")


FIELDS = tuple(Metadata.model_fields)


class Lines:
    """The lines of a folder's metadata by file name."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """database: as `opened` fills it."""
        self._database = database

    def entry(self, name: str) -> Entry:
        """What is known about an image; without a title, its caption or its file's name."""
        shown = readable(name)
        row = self._database.execute("SELECT line FROM about WHERE file = ?", (shown,)).fetchone()
        given = Metadata.model_validate_json(row[0]) if row else Metadata(file_name=shown)
        stem = Path(shown).stem.replace("_", " ")
        title = given.title or given.caption or stem
        return cleaned(Entry(file=shown, title=title, url=given.url, caption=given.caption, license=given.license))


def cleaned(entry: Entry) -> Entry:
    """An entry as a result may show it: bounded, visible, without tags of the agent."""
    return Entry(
        file=entry.file,
        title=text.clean(entry.title, MAX_TITLE) or "untitled",
        url=text.clean_url(entry.url),
        caption=text.clean(entry.caption, MAX_CAPTION),
        license=text.clean(entry.license, MAX_LICENSE),
    )


def readable(name: str) -> str:
    """A file's name as text; bytes that are no UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@contextlib.contextmanager
def opened(folder: Path, names: Iterable[str], scratch: Path, report: Callable[[str], None]) -> Iterator[Lines]:
    """The metadata of a folder.

    Args:
        folder: the images.
        names: paths of its images.
        scratch: folder for the database.
        report: called with lines about what has no effect.

    Raises:
        UserError: a line is wrong, no line names an image of the folder, or the database cannot be kept.
    """
    path = scratch / "metadata.sqlite"
    path.unlink(missing_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute(
                "CREATE TABLE about (file TEXT PRIMARY KEY, line TEXT, number INTEGER, found INTEGER DEFAULT 0) "
                "WITHOUT ROWID"
            )
            if (folder / FILE).is_file():
                _fill(database, folder / FILE, names, report)
            yield Lines(database)
    except sqlite3.Error as error:
        raise UserError(
            f"cannot keep the metadata: {error}", where=str(path), remedy="free space, or build elsewhere"
        ) from None


def _fill(database: sqlite3.Connection, path: Path, names: Iterable[str], report: Callable[[str], None]) -> None:
    unread: dict[str, None] = {}
    database.execute("BEGIN")
    database.executemany("INSERT OR REPLACE INTO about (file, line, number) VALUES (?, ?, ?)", _rows(path, unread))
    database.executemany("UPDATE about SET found = 1 WHERE file = ?", ((readable(name),) for name in names))
    database.execute("COMMIT")
    for field in unread:
        meant = wording.close(field, FIELDS)
        report(f"{FILE}: the field {field!r} is not read" + (f" (did you mean {meant}?)" if meant else ""))
    _report_unfound(database, path, report)


def _rows(path: Path, unread: dict[str, None]) -> Iterator[tuple[str, str, int]]:
    """File name, line and number of each line. unread: gets the names of fields that are not read."""
    for line in jsonl.scan(path, Metadata):
        if isinstance(line, UserError):
            raise line
        record = line.record
        unread.update(dict.fromkeys(list(record.model_extra or ())[: _MAX_UNREAD - len(unread)]))
        known = record.model_dump_json(include=set(FIELDS), exclude_defaults=True)
        yield os.path.normpath(record.file_name), known, line.number


def _report_unfound(database: sqlite3.Connection, path: Path, report: Callable[[str], None]) -> None:
    (lines,), (unfound,) = (
        database.execute(f"SELECT COUNT(*) FROM about {where}").fetchone() for where in ("", "WHERE found = 0")
    )
    if not unfound:
        return
    rows = database.execute("SELECT number, file FROM about WHERE found = 0 ORDER BY number LIMIT ?", (_SHOWN,))
    first = ", ".join(f"line {number}: {file!r}" for number, file in rows) + (", …" if unfound > _SHOWN else "")
    if unfound == lines:
        raise UserError(
            f"no line names an image of the folder ({first})",
            where=str(path),
            remedy='file_name is a path below the folder: "birds/kea.jpg"',
        )
    report(f"{FILE}: {wording.plural(unfound, 'line names', 'lines name')} no image of the folder ({first})")
