"""Answers of tools by content: in memory, and optionally in a recording, so that a run can be repeated without its vendors.

Modes: off; live (memory only); record (memory and recording, which is not read); replay-or-live (from the recording; what
is missing is called and recorded); replay-strict (from the recording only). Callers store successful answers only. An empty
answer is kept for a short time, because a search that finds nothing now may find something later; a strict replay uses
it for ever, because it repeats a run.

A recording is an SQLite file or a prefix of a store. It is read and written in threads of its own, so that a locked file, a
slow disk or a store that does not answer does not stop the event loop. An answer is recorded before `put` returns.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from gog.calls.recording import Entry, Recording
from gog.calls.recordings import open_recording
from gog.calls.store_recording import StoreRecording
from gog.calls.worker import Batches, Singly
from gog.spec import CacheSpec, StoreSpec
from gog.store import Patience

MAX_KEPT_BYTES = 1 << 30
"""Bytes of answers that the processes of a stage keep in the memory of one machine; each drops the least recently used."""
MOST_READS, MOST_WRITES = 256, 16
"""Answers that wait for the recording; further calls wait without handing theirs over. One may have tens of megabytes."""
REQUESTS = 8
"""Requests to a store at once, from each process; boto3 keeps ten connections."""


class Cache:
    """Answers' bodies by key (call_path.cache_key), as the mode prescribes. Used in one event loop."""

    def __init__(
        self,
        spec: CacheSpec,
        now: Callable[[], float] = time.time,
        environment: Mapping[str, str] = os.environ,
        store: StoreSpec | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Opens the recording, which takes time where another process has locked it, or a store is slow.

        Args:
            spec: mode, recording, bounds.
            now: seconds since 1970.
            environment: in which torchrun describes the processes of this machine, who share the memory.
            store: of the run, whose options hold for a recording in a bucket; None for those of the environment.
            patience: how long requests to a bucket are retried. Default: two minutes.

        Raises:
            UserError: the recording cannot be used.
            store.Unavailable: its store does not answer.
        """
        self.spec, self._now = spec, now
        self._memory: OrderedDict[str, Entry] = OrderedDict()
        self._kept_bytes, self._max_bytes = 0, MAX_KEPT_BYTES // int(environment.get("LOCAL_WORLD_SIZE", "1"))
        self._kept_in: _Keeper | None = None
        if spec.path and spec.mode not in ("off", "live"):
            found = open_recording(spec.path, store, must_exist=self.strict, patience=patience, environment=environment)
            self._kept_in = _Objects(found) if isinstance(found, StoreRecording) else _File(found)

    @property
    def strict(self) -> bool:
        """Whether a missing answer is a failure instead of a call."""
        return self.spec.is_replay

    async def get(self, key: str) -> bytes | None:
        """The answer kept under a key; None when there is none.

        Raises:
            UserError: the recording cannot be read.
            store.Unavailable: its store does not answer.
        """
        kept = self._kept(key)
        if kept is not None or self._kept_in is None or self.spec.mode == "record":
            return kept
        entry = await self._kept_in.reads.add((key, None if self.strict else self._now()))
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
            tool: what answered, for who inspects the recording.
            is_empty: whether it says that nothing was found.

        Raises:
            UserError: the recording cannot be written.
            store.Unavailable: its store does not answer.
        """
        if self.spec.mode == "off":
            return
        now = self._now()
        entry = Entry(key, tool, now, now + self.spec.empty_seconds if is_empty else None, answer)
        self._remember(entry)
        if self._kept_in is not None and not self.strict:
            await self._kept_in.writes.add(entry)

    async def close(self) -> None:
        """Closes the recording, when all that was put is in it."""
        if self._kept_in is not None:
            await self._kept_in.close()

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


class _Keeper(Protocol):
    """A recording, and the threads that use it."""

    @property
    def reads(self) -> Batches[tuple[str, float | None], Entry | None] | Singly[tuple[str, float | None], Entry | None]:
        """The answer of a key that is valid at a time (None: at any time)."""

    @property
    def writes(self) -> Batches[Entry, None] | Singly[Entry, None]:
        """Records an answer."""

    async def close(self) -> None:
        """Closes it when all reads and writes have ended."""


class _Objects:
    """A recording in a store, and the threads in which its requests wait."""

    def __init__(self, recording: StoreRecording) -> None:
        self._threads = ThreadPoolExecutor(REQUESTS, "gog-recording")
        self.reads: Singly[tuple[str, float | None], Entry | None] = Singly(
            lambda wanted: recording.get(*wanted), self._threads, MOST_READS
        )
        self.writes: Singly[Entry, None] = Singly(
            recording.put, self._threads, MOST_WRITES, "an answer is not recorded, and its call is over"
        )

    async def close(self) -> None:
        await self.reads.finish()
        await self.writes.finish()
        self._threads.shutdown(wait=False)


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
