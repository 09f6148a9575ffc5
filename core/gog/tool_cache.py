"""Answers of tools by content: in memory, and optionally in a file, so that a run can be repeated without its vendors.

Modes: off; live (memory only); record (memory and file, which is not read); replay-or-live (from the file; what is
missing is called and recorded); replay-strict (from the file only). Callers store successful answers only. An empty
answer is kept for a short time, because a search that finds nothing now may find something later; a strict replay uses
it for ever, because it repeats a run.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from gog.calls.recording import Entry, Recording
from gog.spec import CacheSpec


class Cache:
    """Answers' bodies by key (call_path.cache_key), as the mode prescribes. Used in one thread."""

    def __init__(self, spec: CacheSpec, now: Callable[[], float] = time.time) -> None:
        """
        Args:
            spec: mode, file, bounds.
            now: seconds since 1970.

        Raises:
            UserError: the file cannot be used.
        """
        self.spec, self._now = spec, now
        self._memory: OrderedDict[str, Entry] = OrderedDict()
        has_file = spec.path and spec.mode not in ("off", "live")
        self._file = Recording(Path(str(spec.path)), must_exist=self.strict) if has_file else None

    @property
    def strict(self) -> bool:
        """Whether a missing answer is a failure instead of a call."""
        return self.spec.mode == "replay-strict"

    def get(self, key: str) -> bytes | None:
        """The answer kept under a key; None when there is none."""
        if self.spec.mode == "off":
            return None
        entry = self._memory.get(key)
        if entry is not None and (entry.expires is None or self.strict or entry.expires > self._now()):
            self._memory.move_to_end(key)
            return entry.answer
        if self._file is None or self.spec.mode == "record":
            return None
        entry = self._file.get(key, None if self.strict else self._now())
        if entry is None:
            return None
        self._remember(entry)
        return entry.answer

    def put(self, key: str, answer: bytes, *, tool: str = "", is_empty: bool = False) -> None:
        """Keeps an answer.

        Args:
            key: of the call.
            answer: its body.
            tool: what answered, for who inspects the file.
            is_empty: whether it says that nothing was found.

        Raises:
            UserError: the file cannot be written.
        """
        if self.spec.mode == "off":
            return
        now = self._now()
        entry = Entry(key, tool, now, now + self.spec.empty_seconds if is_empty else None, answer)
        self._remember(entry)
        if self._file is not None and not self.strict:
            self._file.put(entry)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def _remember(self, entry: Entry) -> None:
        self._memory[entry.key] = entry
        self._memory.move_to_end(entry.key)
        while len(self._memory) > self.spec.max_entries:
            self._memory.popitem(last=False)
