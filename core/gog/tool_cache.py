"""Answers of tools by content: in memory, and optionally in a file, so that a run can be repeated without its vendors.

Modes: off; live (memory only); record (memory and file, which is not read); replay-or-live (from the file; what is
missing is called and recorded); replay-strict (from the file only). Callers store successful answers only. The file is
SQLite in write-ahead mode: several processes may share it, and a killed process loses at most its last answers.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from pathlib import Path

from gog.errors import UserError
from gog.spec import CacheSpec


class Cache:
    """Answers' bodies by key (call_path.cache_key), as the mode prescribes. Used in one thread."""

    def __init__(self, spec: CacheSpec) -> None:
        self.spec = spec
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._file = _open(Path(spec.path)) if spec.path and spec.mode not in ("off", "live") else None

    @property
    def strict(self) -> bool:
        """Whether a missing answer is a failure instead of a call."""
        return self.spec.mode == "replay-strict"

    def get(self, key: str) -> bytes | None:
        """The answer kept under a key; None when there is none."""
        if self.spec.mode == "off":
            return None
        found = self._memory.get(key)
        if found is not None:
            self._memory.move_to_end(key)
            return found
        if self._file is None or self.spec.mode == "record":
            return None
        row = self._file.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is not None:
            self._remember(key, row[0])
        return row[0] if row else None

    def put(self, key: str, answer: bytes) -> None:
        """Keeps an answer.

        Raises:
            UserError: the file cannot be written.
        """
        if self.spec.mode == "off":
            return
        self._remember(key, answer)
        if self._file is not None and not self.strict:
            try:
                with self._file:
                    self._file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer))
            except sqlite3.Error as error:
                raise UserError(
                    f"cannot record an answer: {error}",
                    where=str(self.spec.path),
                    remedy="free space on its disk, then `gog resume`",
                ) from None

    def _remember(self, key: str, answer: bytes) -> None:
        self._memory[key] = answer
        self._memory.move_to_end(key)
        while len(self._memory) > self.spec.max_entries:
            self._memory.popitem(last=False)


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(path, timeout=30)
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer BLOB NOT NULL)")
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"cannot open the tool cache: {error}", where=str(path), remedy="name another file, or remove this one"
        ) from None
    return file
