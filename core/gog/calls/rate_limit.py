"""A rate limit of one tool, which all processes of a machine share.

Requests are spaced evenly: at most one per interval, with no burst after a pause, because vendors count in windows of
their own. The time from which the next request may be sent is in a small file, locked for the microseconds in which it
is read and written; without a file the limit holds in this process. Machines share nothing: each gets an equal part of
the rate (`for_machine`), so that the limit is never exceeded, and is used up where all machines are busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

from gog.errors import unwritable

BUSY_SECONDS = 0.001
"""Pause while another process holds the lock."""
_TIME = struct.Struct("<d")


def for_machine(per_minute: float, environment: Mapping[str, str]) -> float:
    """This machine's part of a rate. torchrun describes the processes of a stage in the environment.

    >>> for_machine(60, {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"})
    30.0
    """
    size, local = (int(environment.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return per_minute * min(local, size) / size


class RateLimit:
    """Spaces requests. One object per tool and process."""

    def __init__(
        self,
        per_minute: float | None,
        path: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """
        Args:
            per_minute: requests per minute; None for no limit.
            path: file that the processes of a machine share; None to limit this process only.
            clock: seconds since 1970, the same for all processes.
            sleep: waits for so many seconds.
        """
        self.interval = 60 / per_minute if per_minute else 0.0
        self._path, self._clock, self._sleep = path, clock, sleep
        self._next = 0.0
        self._turn = asyncio.Lock()  # this process's requests are sent in their order

    async def wait(self) -> float:
        """Waits until a request may be sent; returns for how many seconds it waited.

        Raises:
            Unwritable: the shared file cannot be used.
        """
        if not self.interval:
            return 0.0
        waited = 0.0
        async with self._turn:
            while (pause := self._take()) > 0:
                await self._sleep(pause)
                waited += pause
        return waited

    def try_now(self) -> bool:
        """Takes the right to send a request, if one may be sent now. Raises Unwritable."""
        return not self.interval or (not self._turn.locked() and self._take() <= 0)

    def _take(self) -> float:
        """Takes the next place and returns 0; else the seconds after which it may be free."""
        with self._state() as state:
            if state is None:
                return BUSY_SECONDS
            now = self._clock()
            earliest = (
                state[0] if state[0] <= now + self.interval else now
            )  # a clock that was set back holds no request
            if now < earliest:
                return earliest - now
            state[0] = now + self.interval
            return 0.0

    @contextlib.contextmanager
    def _state(self) -> Iterator[list[float] | None]:
        """The time of the next request, read and written under a lock; None while another process holds it."""
        if self._path is None:
            state = [self._next]
            yield state
            self._next = state[0]
            return
        try:
            with _locked(self._path) as file:
                if file is None:
                    yield None
                    return
                data = os.pread(file, _TIME.size, 0)
                state = [_TIME.unpack(data)[0] if len(data) == _TIME.size else 0.0]
                yield state
                os.pwrite(file, _TIME.pack(state[0]), 0)
        except OSError as error:
            raise unwritable(error, self._path, remedy="see to the volume of the run's folder") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """A file, open and locked; None while another process holds its lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file
    except BlockingIOError:
        yield None
    finally:
        os.close(file)
