"""Appends records in a thread of its own, all that came together as one object.

Writing takes milliseconds to a disk and tens of them to a bucket, so it is never on the loop that samples. An episode
waits for its last turn before it samples the next one; the tool call between them usually takes longer than writing.
A pause between objects bounds the number of requests. It ends early once half of the trajectories wait for it: with tools that
answer at once, most of a step would be waiting.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gog import finite_json
from gog.images import Image
from gog.journal import records
from gog.journal.chains import Key
from gog.journal.records import Envelope, Kept
from gog.trajectory import Trajectory, outline

MOST_BYTES = 1 << 24
"""Bytes of an object from which the rest of what is pending goes into the next one."""
NO_WEIGHTS: Mapping[int, str] = {}
"""Of a play whose journal is named by its weights, or whose weights never change."""


@dataclass
class _Pending:
    """A record that is not written yet."""

    key: Key
    """Its trajectory."""
    body: Kept | Trajectory
    """Its content."""
    images: tuple[Image, ...]
    """Images that it shows for the first time."""
    begins: bool
    """Whether it is the first record of its trajectory."""
    position: int = 0
    """Its place among all records of the writer, from 1."""


class Writer:
    """Appends to the journal of a play. `close` writes what is pending and ends the thread.

    Args:
        put: writes the object of this number, counted from 0; returns when it is durable.
        pause: seconds between two objects, at most.
    """

    def __init__(self, put: Callable[[int, bytes], None], pause: float) -> None:
        self._put, self._pause = put, pause
        self._changed = threading.Condition()
        self._pending: list[_Pending] = []
        self._newest: dict[Key, _Pending] = {}
        self._appended = self._written = self._objects = 0
        self._heads: dict[Key, str] = {}
        self._shown: set[str] = set()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._error: BaseException | None = None
        self._closing = False
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gog-journal", daemon=True)
        self._thread.start()

    def line(self, question: str, sample: int, head: str = "", weights: Mapping[int, str] = NO_WEIGHTS) -> Line:
        """Begins the records of a trajectory.

        Args:
            question: its id.
            sample: its number among the samples of the question.
            head: digest of the record that they continue; empty for a new one.
            weights: digest of the weights by version, recorded with the turns that they sample; versions may be added.
        """
        key = (question, sample)
        with self._changed:
            self._heads[key] = head
        return Line(self, key, begins=not head, weights=weights)

    def append(self, item: _Pending) -> int:
        """Appends a record; returns its position, for `durable`. Raises what writing an earlier one raised."""
        with self._changed:
            if self._error is not None:
                raise self._error
            last = self._newest.get(item.key)
            if last is not None and _same_turn(last.body, item.body):  # not written yet: both become one record
                last.body = _joined(last.body, item.body)
                last.images += item.images
                return last.position
            self._appended += 1
            item.position = self._appended
            self._pending.append(item)
            self._newest[item.key] = item
            self._changed.notify()
            return item.position

    async def durable(self, position: int) -> None:
        """Waits until a record is written. Raises what writing it raised."""
        with self._changed:
            if self._error is not None:
                raise self._error
            if self._written >= position:
                return
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((position, future))
            if self._is_urgent():
                self._hurry.set()
        await future

    def close(self) -> None:
        """Writes what is pending and ends the thread. Raises what writing raised."""
        with self._changed:
            self._closing = True
            self._hurry.set()
            self._changed.notify()
        self._thread.join()
        if self._error is not None:
            raise self._error

    # ---- the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self._closing:
                    self._changed.wait()
                if not self._pending:
                    return
                batch, position = self._take()
            try:
                self._put(self._objects, self._encoded(batch))
            except BaseException as error:  # noqa: BLE001 (not swallowed: raised by append, durable and close)
                self._finish(self._written, error)
                return
            self._objects += 1
            self._finish(position, None)
            self._hurry.wait(self._pause)

    def _take(self) -> tuple[list[_Pending], int]:
        """What the next object holds, and the position of its last record."""
        batch, size = [], 0
        while self._pending and size < MOST_BYTES:
            item = self._pending.pop(0)
            if self._newest.get(item.key) is item:
                del self._newest[item.key]
            batch.append(item)
            size += sum(image.pixels.nbytes for image in item.images)
        return batch, batch[-1].position

    def _encoded(self, batch: Iterable[_Pending]) -> bytes:
        parts = []
        for item in batch:
            for image in item.images:
                if image.hash not in self._shown:
                    self._shown.add(image.hash)
                    parts.append(records.image_frame(image))
            ended = isinstance(item.body, Trajectory)
            envelope = Envelope(*item.key, after="" if item.begins else self._heads[item.key], ended=ended)
            body = outline(item.body) if isinstance(item.body, Trajectory) else item.body
            text = finite_json.dumps_model(body, exclude_defaults=True)
            data, self._heads[item.key] = records.frame(records.RECORD, records.record(envelope, text))
            parts.append(data)
            if ended:
                del self._heads[item.key]
        return records.joined(parts)

    def _is_urgent(self) -> bool:
        """Whether half of the trajectories wait, or the writer is closing."""
        return self._closing or (bool(self._waiting) and 2 * len(self._waiting) >= len(self._heads))

    def _finish(self, position: int, error: BaseException | None) -> None:
        """Wakes those that wait for records up to a position; all of them after an error."""
        with self._changed:
            self._written, self._error = position, error
            ready = [future for at, future in self._waiting if error is not None or at <= position]
            self._waiting = [(at, future) for at, future in self._waiting if error is None and at > position]
            if not self._is_urgent():
                self._hurry.clear()
        for loop in {future.get_loop() for future in ready}:
            mine = [future for future in ready if future.get_loop() is loop]
            loop.call_soon_threadsafe(_resolve, mine, error)


class Line:
    """The records of one trajectory. Implements gog.agent.Keeper."""

    def __init__(self, writer: Writer, key: Key, *, begins: bool, weights: Mapping[int, str] = NO_WEIGHTS) -> None:
        self._writer, self._key, self._begins, self._weights = writer, key, begins, weights
        self._turn = 0

    def keep(self, kept: Kept, images: Iterable[Image]) -> None:
        """Appends what an episode has done since the last record, and the images that it was shown."""
        position = self._append(kept.sampled_from(self._weights), tuple(images))
        if kept.turn.observation is None:
            self._turn = position

    async def settled(self) -> None:
        """Waits until the last turn that the model wrote is durable. The result of its tool may still be pending."""
        await self._writer.durable(self._turn)

    def end(self, trajectory: Trajectory) -> None:
        """Appends the judged trajectory."""
        self._append(trajectory, ())

    def _append(self, body: Kept | Trajectory, images: tuple[Image, ...]) -> int:
        item = _Pending(self._key, body, images, self._begins)
        self._begins = False
        return self._writer.append(item)


def _resolve(futures: Iterable[asyncio.Future[None]], error: BaseException | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _same_turn(before: Kept | Trajectory, after: Kept | Trajectory) -> bool:
    return isinstance(before, Kept) and isinstance(after, Kept) and before.number == after.number


def _joined(before: Kept | Trajectory, after: Kept | Trajectory) -> Kept | Trajectory:
    return after.model_copy(update={"segments": before.segments + after.segments})
