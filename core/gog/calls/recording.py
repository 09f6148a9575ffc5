"""Recorded answers of tools: one SQLite file that several processes may share.

Write-ahead mode lets ranks read while one writes, and a killed process loses at most its last answers. Answers are
compressed with zstd, which shrinks JSON with text three- to tenfold in tens of microseconds (zlib, in the standard
library, takes several times as long for less). What the file holds is not trusted: an answer that does not decompress
within bounds counts as missing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from gog.errors import Unwritable, UserError, is_storage_outage

VERSION = 1
MAX_ANSWER_BYTES = 64_000_000
LEVEL = 3
LOCK_SECONDS = 30.0
"""Seconds for which a file that another process has locked is waited for."""
_COLUMNS = "key, tool, recorded, expires, answer"


@dataclass(frozen=True)
class Entry:
    """One recorded answer."""

    key: str
    """Key of the call (`gog.call_path.cache_key`)."""
    tool: str
    """Name of the tool."""
    recorded: float
    """When it was recorded, in seconds since 1970."""
    expires: float | None
    """Until when it is used instead of a call, in seconds since 1970; None: for ever."""
    answer: bytes
    """Body of the answer."""


class Recording:
    """A file of recorded answers. Used by one thread at a time."""

    def __init__(self, path: Path, *, must_exist: bool = False) -> None:
        """Opens the file. One that must exist may be on a volume that is mounted read-only.

        Raises:
            UserError: it is not a recording, or does not exist although it must.
            Unwritable: it cannot be opened.
        """
        if must_exist and not path.is_file():
            raise UserError(
                "no such recording", where=str(path), remedy="record one first, or `gog recording import` one"
            )
        self.path = path
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)
        self._decompressor = zstandard.ZstdDecompressor()
        self._file = _open_unchangeable(path) if must_exist and not os.access(path.parent, os.W_OK) else _open(path)

    def get(self, key: str, now: float | None = None) -> Entry | None:
        """The answer of a call; None if there is none, or none that is valid at `now` (None: at any time).

        Raises:
            Unwritable: the file is damaged, or cannot be read now.
        """
        try:
            row = self._file.execute(f"SELECT {_COLUMNS} FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            remedy = "replace the file with a copy, or import the recording again"
            raise _unusable("cannot read a recorded answer", error, self.path, remedy) from None
        entry = self._entry(row) if row else None
        expired = entry is not None and now is not None and entry.expires is not None and entry.expires <= now
        return None if expired else entry

    def put(self, entry: Entry) -> None:
        """Records an answer. Raises Unwritable if the file cannot be written."""
        self.put_all([entry])

    def put_all(self, entries: Iterable[Entry]) -> int:
        """Records answers, all of them or none; returns their number. Raises Unwritable."""
        rows = (
            (each.key, each.tool, each.recorded, each.expires, self._compressor.compress(each.answer))
            for each in entries
        )
        if not self.path.exists():  # SQLite would go on writing to a file that has no name any more
            raise Unwritable(
                "the recording was removed while it was in use",
                where=str(self.path),
                remedy="`gog resume`",
                may_pass=True,
            )
        try:
            with self._file:
                return self._file.executemany(
                    f"INSERT OR REPLACE INTO answers ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", rows
                ).rowcount
        except sqlite3.Error as error:
            remedy = "name another file, or import the recording again, then `gog resume`"
            raise _unusable("cannot record an answer", error, self.path, remedy) from None

    def entries(self) -> Iterator[Entry]:
        """All answers that can be read, by key. Raises Unwritable if the file is damaged, or cannot be read now."""
        try:
            for row in self._file.execute(f"SELECT {_COLUMNS} FROM answers ORDER BY key"):
                entry = self._entry(row)
                if entry is not None:
                    yield entry
        except sqlite3.Error as error:
            raise _unusable(
                "cannot read the recorded answers", error, self.path, "replace the file with a copy"
            ) from None

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _entry(self, row: tuple[str, str, float, float | None, bytes]) -> Entry | None:
        try:
            if not 0 <= zstandard.frame_content_size(row[4]) <= MAX_ANSWER_BYTES:
                return None
            return Entry(*row[:4], self._decompressor.decompress(row[4]))
        except (zstandard.ZstdError, TypeError):
            return None


def _open_unchangeable(path: Path) -> sqlite3.Connection:
    """A recording in a folder that cannot be written. SQLite then reads no log of writes beside it."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise UserError(
            "the recording was not closed, and its folder is read-only",
            where=str(path),
            remedy="`gog recording inspect` it where its folder can be written, and copy it again",
        )
    try:
        file = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True, check_same_thread=False)
        version = file.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            raise sqlite3.DatabaseError(f"it has version {version}, not {VERSION}")
    except sqlite3.Error as error:
        raise _unusable("cannot open the tool cache", error, path, "name another file") from None
    return file


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(path, timeout=LOCK_SECONDS, check_same_thread=False)
        version = file.execute("PRAGMA user_version").fetchone()[0]
        is_new = not file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version != VERSION and not is_new:
            raise sqlite3.DatabaseError(f"it has version {version}, not {VERSION}")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, tool TEXT NOT NULL, recorded REAL NOT NULL, "
            "expires REAL, answer BLOB NOT NULL)"
        )
        file.execute(f"PRAGMA user_version = {VERSION}")
    except (OSError, sqlite3.Error) as error:
        raise _unusable("cannot open the tool cache", error, path, "name another file, or remove this one") from None
    return file


_REMEDIES = {
    sqlite3.SQLITE_FULL: "free space on its disk, then `gog resume`",
    sqlite3.SQLITE_BUSY: "end the process that locks it, then `gog resume`",
    sqlite3.SQLITE_LOCKED: "end the process that locks it, then `gog resume`",
    sqlite3.SQLITE_IOERR: "check its disk, then `gog resume`",
    sqlite3.SQLITE_READONLY: "make its disk writable, then `gog resume`",
}
"""What helps against errors that may pass without a change to the run, by SQLite's primary error code."""


def _unusable(what: str, error: Exception, path: Path, remedy: str) -> Unwritable:
    """The error for a file that cannot be used.

    Args:
        what: what could not be done.
        error: of SQLite or of the system.
        path: the file.
        remedy: what to do if the error does not pass by itself.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    outage = code in _REMEDIES or is_storage_outage(error)
    if outage:
        remedy = _REMEDIES.get(code, "check its disk, then `gog resume`")
    return Unwritable(f"{what}: {error}", where=str(path), remedy=remedy, may_pass=outage)
