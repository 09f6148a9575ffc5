"""Answers of tools by content: in memory, and optionally in a file, so that a run can be repeated without its vendors.

Modes: off; live (memory only); record (memory and file, which is not read); replay-or-live (from the file; what is
missing is called and recorded); replay-strict (from the file only). Callers store successful answers only. An empty
answer is kept for a short time, because a search that finds nothing now may find something later; a strict replay uses
it for ever, because it repeats a run.

The file is read and written in a thread of its own, so that a locked file or a slow disk does not stop the event loop.
An answer is in the file before `put` returns.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from gog import mounts
from gog.calls.recording import Entry, Recording
from gog.calls.worker import Batches
from gog.spec import CacheSpec

MAX_KEPT_BYTES = 1 << 30
"""Bytes of answers that the processes of a stage keep in the memory of one machine; each drops the least recently used."""
MOST_READS, MOST_WRITES = 256, 16
"""Answers that wait for the file; further calls wait without handing theirs over. One may have tens of megabytes."""


class Cache:
    """Answers' bodies by key (call_path.cache_key), as the mode prescribes. Used in one event loop."""

    def __init__(
        self,
        spec: CacheSpec,
        now: Callable[[], float] = time.time,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Opens the file, which takes time where another process has locked it.

        Args:
            spec: mode, file, bounds.
            now: seconds since 1970.
            environment: in which torchrun describes the processes of this machine, who share the memory.

        Raises:
            UserError: the file cannot be used.
        """
        self.spec, self._now = spec, now
        self._memory: OrderedDict[str, Entry] = OrderedDict()
        self._kept_bytes, self._max_bytes = 0, MAX_KEPT_BYTES // int(environment.get("LOCAL_WORLD_SIZE", "1"))
        has_file = spec.path and spec.mode not in ("off", "live")
        self._file = _File(Recording(mounts.file(str(spec.path)), must_exist=self.strict)) if has_file else None

    @property
    def strict(self) -> bool:
        """Whether a missing answer is a failure instead of a call."""
        return self.spec.is_replay

    async def get(self, key: str) -> bytes | None:
        """The answer kept under a key; None when there is none. Raises UserError for a file that cannot be read."""
        kept = self._kept(key)
        if kept is not None or self._file is None or self.spec.mode == "record":
            return kept
        entry = await self._file.reads.add((key, None if self.strict else self._now()))
        if entry is None:
            return self._kept(key)  # an equal call may have ended meanwhile
        self._remember(entry)
        return entry.answer

    def _kept(self, key: str) -> bytes | None:
        """The answer that is in memory."""
        entry = self._memory.get(key)
        if entry is None or not (entry.expires is None or self.strict or entry.expires > self._now()):
            return None
        self._memory.move_to_end(key)
        return entry.answer

    async def put(self, key: str, answer: bytes, *, tool: str = "", is_empty: bool = False) -> None:
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
            await self._file.writes.add(entry)

    async def close(self) -> None:
        """Closes the file, when all that was put is in it."""
        if self._file is not None:
            await self._file.close()

    def _remember(self, entry: Entry) -> None:
        self._forget(entry.key)
        self._memory[entry.key] = entry
        self._kept_bytes += len(entry.answer)
        while len(self._memory) > self.spec.max_entries or self._kept_bytes > self._max_bytes:
            self._forget(next(iter(self._memory)))

    def _forget(self, key: str) -> None:
        entry = self._memory.pop(key, None)
        if entry is not None:
            self._kept_bytes -= len(entry.answer)


class _File:
    """The recording, and the one thread that uses it."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._thread = ThreadPoolExecutor(1, "gog-recording")
        self.reads: Batches[tuple[str, float | None], Entry | None] = Batches(self._get, self._thread, MOST_READS)
        self.writes: Batches[Entry, None] = Batches(self._put, self._thread, MOST_WRITES)

    def _get(self, wanted: Sequence[tuple[str, float | None]]) -> list[Entry | None]:
        return [self._recording.get(key, now) for key, now in wanted]

    def _put(self, entries: Sequence[Entry]) -> list[None]:
        self._recording.put_all(entries)
        return [None] * len(entries)

    async def close(self) -> None:
        await self.reads.finish()
        await self.writes.finish()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._recording.close)
        self._thread.shutdown(wait=False)
