"""Fills the index concurrently with its readers; resumable.

A batch of lines and the position in the archive are written in one transaction. So a kill loses at most one batch,
readers see what is indexed so far, and the second of two viewers on one index continues from the position of the first.
An archive whose content changed is a new archive; rows of the old one are no longer shown.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sqlite3
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gog import locks
from gog.errors import UserError
from gog_console.viewer import schema
from gog_console.viewer.lines import Archive, Line
from gog_console.viewer.sources import Found, Listing, Source

BATCH = 500
"""Lines per transaction."""
OPEN = 64
"""Archives kept open at most; each uses a file descriptor."""


class Overtaken(Exception):
    """Another process indexed the same lines first."""


@dataclass(frozen=True)
class Progress:
    """Progress of indexing."""

    busy: bool = True
    """Whether a pass is under way that has lines to index."""
    archives: int = 0
    """Archives in all."""
    done: int = 0
    """Archives that are indexed."""
    share: float = 0.0
    """Indexed share of everything, 0 to 1."""
    problems: tuple[tuple[str, str], ...] = ()
    """What could not be read, of the listing and of the archives: (where, reason)."""
    listing: Listing = field(default_factory=lambda: Listing(()))
    """The newest listing of the source."""


def location(place: Source) -> Path:
    """Path of a source's index in the user's cache, or in a temporary folder when the cache is not writable."""
    name = f"{hashlib.blake2b(place.address.encode(), digest_size=12).hexdigest()}.sqlite"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gog" / "view"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder / name
    except OSError:
        return Path(tempfile.mkdtemp(prefix="gog-view-")) / name


def connect(path: Path) -> sqlite3.Connection:
    """Opens the index; a damaged one, or one of another version, is rebuilt."""
    # Serialised, because SQLite fails at once, whatever its timeout, when two processes switch a new file to WAL.
    with locks.held(os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)):
        try:
            return _connected(path)
        except sqlite3.OperationalError:
            raise  # busy or full disk: the index itself is intact
        except sqlite3.DatabaseError:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for statement in schema.SQL if version == 0 else ():
        connection.execute(statement)
    connection.execute("COMMIT")
    if version not in (0, schema.VERSION):
        connection.close()
        raise sqlite3.DatabaseError("an index of another version")
    return connection


class Indexer:
    """Keeps an index up to date with its source. `progress` may be read by other threads."""

    def __init__(self, place: Source, path: Path) -> None:
        self.place, self.path = place, path
        self.progress = Progress()
        self._archives: OrderedDict[int, Archive] = OrderedDict()
        self._broken: dict[tuple[str, int, str], Exception] = {}
        self._lock = threading.Lock()

    def follow(self, stop: threading.Event, every: float) -> None:
        """Indexes, then checks for new archives periodically until `stop` is set."""
        while True:
            try:
                self.refresh(stop)
            except (sqlite3.Error, OSError) as error:  # a full disk, for example; what is indexed remains usable
                problem = (str(self.path), f"the index cannot be written: {error}")
                self.progress = replace(self.progress, busy=False, problems=(*self.progress.problems, problem))
            if stop.wait(every):
                return

    def refresh(self, stop: threading.Event | None = None) -> None:
        """One pass over all archives of the source. What cannot be read is reported in `progress`."""
        stop = stop or threading.Event()
        connection = connect(self.path)
        try:
            listing = self.place.list()
            self._broken = {key: error for key, error in self._broken.items() if not isinstance(error, OSError)}
            ids = _register(connection, listing.archives)
            self._report(listing, done=0, busy=not self._indexed(connection, ids))
            for number, (found, archive) in enumerate(zip(listing.archives, ids)):
                self._one(connection, found, archive, listing, number, stop)
                if stop.is_set():
                    return
            self._report(listing, done=len(ids), busy=False)
        finally:
            connection.close()

    def _indexed(self, connection: sqlite3.Connection, ids: Sequence[int]) -> bool:
        left = connection.execute("SELECT id FROM archives WHERE live AND NOT done").fetchall()
        return not {row["id"] for row in left} & set(ids)

    def _one(
        self,
        connection: sqlite3.Connection,
        found: Found,
        archive: int,
        listing: Listing,
        number: int,
        stop: threading.Event,
    ) -> None:
        key = (found.key, found.step, found.identity)
        if key in self._broken:
            return
        try:
            while not stop.is_set() and not _row_of(connection, archive)["done"]:
                try:
                    for share in self._read(connection, found, archive):
                        self._report(listing, done=number, busy=True, share=share)
                        if stop.is_set():
                            return
                except Overtaken:
                    continue
        except (UserError, OSError) as error:
            self._broken[key] = error

    def _read(self, connection: sqlite3.Connection, found: Found, archive: int) -> Iterator[float]:
        """Indexes the rest of an archive; yields the indexed share after each batch."""
        opened = self.archive(archive, found)
        offset = int(_row_of(connection, archive)["offset"])
        for batch in _batches(opened.lines(offset)):
            end = batch[-1].offset + batch[-1].length
            _write(connection, found, archive, batch, offset, end)
            offset = end
            yield offset / max(1, opened.size)
        connection.execute("UPDATE archives SET done = 1, size = ? WHERE id = ?", (opened.size, archive))

    def archive(self, archive: int, found: Found | None = None) -> Archive:
        """An archive by its number in the index, open. Raises UserError for one that is gone, missing or corrupt."""
        with self._lock:
            if archive in self._archives:
                self._archives.move_to_end(archive)
                return self._archives[archive]
        place = found or self._found(archive)
        opened = place.read(place.open())
        with self._lock:
            self._archives[archive] = opened
            while len(self._archives) > OPEN:
                self._archives.popitem(last=False)
        return opened

    def _found(self, archive: int) -> Found:
        connection = connect(self.path)
        try:
            row = connection.execute("SELECT * FROM archives WHERE id = ?", (archive,)).fetchone()
        finally:
            connection.close()
        for found in self.progress.listing.archives if row else ():
            if (found.key, found.step, found.identity) == (row["stage"], row["step"], row["identity"]):
                return found
        raise UserError("this checkpoint is gone", where=f"archive {archive}", remedy="reload the list")

    def _report(self, listing: Listing, *, done: int, busy: bool, share: float = 0.0) -> None:
        broken = [
            (f"{key}/{step}", error.what if isinstance(error, UserError) else str(error))
            for (key, step, _), error in self._broken.items()
        ]
        count = len(listing.archives)
        self.progress = Progress(
            busy, count, done, (done + share) / count if count else 1.0, (*listing.problems, *broken), listing
        )


def _register(connection: sqlite3.Connection, archives: Sequence[Found]) -> list[int]:
    """Numbers of archives in the index; only these are live."""
    connection.execute("BEGIN IMMEDIATE")
    ids = []
    for found in archives:
        key = (found.key, found.step, found.identity)
        connection.execute("INSERT OR IGNORE INTO archives (stage, step, identity) VALUES (?, ?, ?)", key)
        query = "SELECT id FROM archives WHERE stage = ? AND step = ? AND identity = ?"
        ids.append(int(connection.execute(query, key).fetchone()["id"]))
    connection.execute("UPDATE archives SET live = id IN (SELECT value FROM json_each(?))", (str(ids),))
    connection.execute("COMMIT")
    return ids


def _row_of(connection: sqlite3.Connection, archive: int) -> sqlite3.Row:
    row: sqlite3.Row = connection.execute("SELECT * FROM archives WHERE id = ?", (archive,)).fetchone()
    return row


def _write(
    connection: sqlite3.Connection, found: Found, archive: int, batch: Sequence[Line], offset: int, end: int
) -> None:
    """A batch and how far the archive is read by it, at once. Raises Overtaken."""
    rows = [schema.row(found, archive, line) for line in batch]
    connection.execute("BEGIN IMMEDIATE")
    try:
        query = "UPDATE archives SET offset = ? WHERE id = ? AND offset = ?"
        if connection.execute(query, (end, archive, offset)).rowcount == 0:
            raise Overtaken
        for row, words in rows:
            _insert(connection, row, words)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


INSERT = (
    f"INSERT INTO rows ({', '.join(schema.COLUMNS)}) VALUES ({', '.join(f':{name}' for name in schema.COLUMNS)}) "
    "ON CONFLICT (id) DO NOTHING"
)


def _insert(connection: sqlite3.Connection, row: schema.Row, words: str) -> None:
    """A row under its id, or under the next one that is free, for records may say what they like."""
    plain = row["id"]
    for number in itertools.count(2):
        done = connection.execute(INSERT, row)
        if done.rowcount:
            connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (done.lastrowid, words))
            return
        row["id"] = f"{plain}.{number}"


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    iterator = iter(lines)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch
