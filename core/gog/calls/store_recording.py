"""Recorded answers below a prefix of a store: one object for each, named by the hash of its key.

    answers/<hash of the key>.zst    zstd of two lines, the hash of all that follows and what is known of the answer, and its body

So machines that share no disk share a recording. An object appears whole and replaces an older one of its key, so two ranks
may record the same call at once: a reader finds one of the two answers. What the store holds is not trusted: an object that
is damaged, of another key or too long counts as missing and is logged, so it is called for again and never answers wrongly.
A failure of the store is raised and never counts as a missing answer.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard
from blake3 import blake3

from gog.calls import recording
from gog.calls.recording import LEVEL, Entry, Recording
from gog.errors import Unwritable, UserError, is_storage_outage
from gog.spec import StoreSpec
from gog.store import Patience, Store, Unavailable, open_reader, open_store, parts
from gog.store.backend import Entry as StoredObject

FORMAT = "gog-answer/1"
FOLDER = "answers/"
CHUNK = 64
"""Answers that are in memory at once while a recording is copied."""
_MAX_HEAD = 10_000
"""Maximum bytes of the lines before an answer."""

log = logging.getLogger(__name__)


def key_of(key: str) -> str:
    """Key in the store of a call's answer."""
    return f"{FOLDER}{blake3(key.encode()).hexdigest()}.zst"


def encode(entry: Entry) -> bytes:
    """The object of an answer."""
    head = {
        "format": FORMAT,
        "key": entry.key,
        "tool": entry.tool,
        "recorded": entry.recorded,
        "expires": entry.expires,
    }
    content = json.dumps(head).encode() + b"\n" + entry.answer
    data = blake3(content).hexdigest().encode() + b"\n" + content
    return zstandard.ZstdCompressor(level=LEVEL).compress(data)


def decode(data: bytes) -> Entry:
    """The answer of an object. Raises ValueError for anything else."""
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= recording.MAX_ANSWER_BYTES + _MAX_HEAD:
            raise ValueError("it is longer than an answer may be, or does not say how long it is")
        digest, _, content = zstandard.ZstdDecompressor().decompress(data).partition(b"\n")
    except zstandard.ZstdError as error:
        raise ValueError(f"it does not decompress: {error}") from None
    if blake3(content).hexdigest().encode() != digest:
        raise ValueError("its content does not agree with its hash")
    return _entry(content)


def _entry(content: bytes) -> Entry:
    head, _, answer = content.partition(b"\n")
    try:
        known = json.loads(head)
        if known["format"] != FORMAT:
            raise ValueError(f"its format is {known['format']!r}, not {FORMAT}")
        expires = known["expires"]
        times = float(known["recorded"]), None if expires is None else float(expires)
        return Entry(str(known["key"]), str(known["tool"]), *times, answer)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its head is not that of an answer: {error}") from None


class StoreRecording:
    """Recorded answers in a bucket or a folder of objects. May be used by several threads at once."""

    def __init__(self, spec: StoreSpec, *, must_exist: bool = False, patience: Patience | None = None) -> None:
        """Opens the prefix. One that must exist is only read, so it needs no permission to write.

        Args:
            spec: address of the prefix, and options of the server.
            must_exist: whether a prefix without answers is an error.
            patience: how long requests to a bucket are retried. Default: two minutes.

        Raises:
            UserError: it holds no answer although it must, or cannot be used.
            Unavailable: the store does not answer.
        """
        self.where = spec.uri
        self._store: Store = open_reader(spec, patience) if must_exist else open_store(spec, patience)
        if must_exist and next(iter(self._listed()), None) is None:
            remedy = "record one first, or `gog recording import` one"
            raise UserError("no such recording", where=spec.uri, remedy=remedy)

    def get(self, key: str, now: float | None = None) -> Entry | None:
        """The answer of a call; None if there is none, or none that is valid at `now` (None: at any time).

        Raises:
            Unavailable: the store does not answer.
            UserError: it refuses to, or its disk cannot be read.
        """
        entry = self._read(key_of(key))
        if entry is None or entry.key != key:
            return None
        return None if now is not None and entry.expires is not None and entry.expires <= now else entry

    def put(self, entry: Entry) -> None:
        """Records an answer. Raises Unavailable, UserError if it is not in the store."""
        self._store.put_object(key_of(entry.key), encode(entry), "application/zstd")

    def put_all(self, entries: Iterable[Entry]) -> int:
        """Records answers, several at a time; returns their number. After a failure some of them may be there.

        Raises:
            Unavailable, UserError: as `put`.
        """
        count, left = 0, iter(entries)
        while chunk := list(itertools.islice(left, CHUNK)):
            parts.together(self.put, chunk)
            count += len(chunk)
        return count

    def entries(self) -> Iterator[Entry]:
        """All answers that can be read, by key. They are put in order in a temporary file. Raises as `get`."""
        with (
            tempfile.TemporaryDirectory(prefix="gog-recording-") as folder,
            contextlib.closing(Recording(Path(folder) / "answers.sqlite")) as in_order,
        ):
            listed = (entry.key for entry in self._listed())
            while keys := list(itertools.islice(listed, CHUNK)):
                in_order.put_all(each for each in parts.together(self._read, keys) if each is not None)
            yield from in_order.entries()

    def close(self) -> None:
        """Releases nothing; a recording in a file has something to close."""

    def _listed(self) -> Iterator[StoredObject]:
        with self._reading():
            yield from self._store.backend.entries(FOLDER)

    def _read(self, key: str) -> Entry | None:
        """The answer of an object; None, and a line in the log, for one that is damaged."""
        with self._reading():
            data = self._store.get_object(key)
        if data is None:
            return None
        try:
            entry = decode(data)
            if key_of(entry.key) != key:
                raise ValueError("it is the answer of another call")
        except ValueError as error:
            log.warning("%s is damaged and counts as missing: %s", self._store.backend.where(key), error)
            return None
        return entry

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except Unavailable:
            raise
        except OSError as error:
            raise Unwritable(
                f"cannot read the recorded answers: {error.strerror or error}",
                where=self.where,
                remedy="check its disk, then `gog resume`",
                may_pass=is_storage_outage(error),
            ) from None
