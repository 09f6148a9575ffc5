"""Looks at what no watch reports: the progress of trainers, and the pods of jobs and servers that wait for a node.

A pass over a running stage takes the newest known progress and never waits for a trainer, which belongs to a tenant. A pass
over an object whose pods do not run yet asks to be woken. Both share one rate, so that thousands of them cost the API server
no more than a few dozen.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gog_operator.api.objects import Progress
from gog_operator.cluster import trainer_client
from gog_operator.workqueue import Key, WorkQueue

POLL_THREADS = 3
"""Requests at the same time."""
POLL_RATE = 12.0
"""Trainers per second that are polled, and objects per second that are woken. New figures cost two writes (of a stage and of
its run), and a waiting job costs three reads, so that all of them cost at most some 36 requests per second; one whose pods are
refused costs four."""
POLL_SECONDS = 5.0
"""Minimum interval between two requests to a trainer."""
MAX_POLL_SECONDS = 60.0
"""Maximum interval between two requests to a trainer whose requests time out."""
WANTED_SECONDS = 150.0
"""Time after which a trainer is no longer polled that no pass or resync has asked for; longer than two resyncs."""

log = logging.getLogger(__name__)


class Polls(Protocol):
    """Reports what no watch reports."""

    wakes: bool
    """Whether it queues a pass when there is something new; otherwise passes ask at intervals."""

    def progress(self, key: Key, url: str) -> Progress | None:
        """The newest known progress of a stage.

        Args:
            key: The stage.
            url: Its trainer's progress document.
        """

    def wake(self, key: Key, seconds: float) -> None:
        """Queues one pass over an object, in so many seconds or later."""

    def stop(self, key: Key) -> None:
        """Forgets a stage whose job does not run."""


class DirectPolls:
    """Asks the trainer at once. For callers that poll at intervals of their own. Implements Polls."""

    wakes = False

    def __init__(self, request: trainer_client.Request) -> None:
        self._request = request

    def progress(self, key: Key, url: str) -> Progress | None:
        return trainer_client.parse_progress(self._request(url, trainer_client.SECONDS))

    def wake(self, key: Key, seconds: float) -> None:
        """Does nothing: the caller returns by itself."""

    def stop(self, key: Key) -> None:
        """Does nothing: no request was planned."""


@dataclass
class _Polled:
    """A stage whose trainer is polled, or an object that is to be woken."""

    url: str
    """Progress document of the trainer; empty to wake the object."""
    wanted: float
    """Reading of the clock when it was last asked for."""
    interval: float = POLL_SECONDS
    """Seconds between two requests."""
    progress: Progress | None = None
    """The newest progress."""


class SharedPolls:
    """Polls trainers in threads of its own, so that a slow trainer blocks no pass. Implements Polls.

    Trainers are polled at intervals, as long as they are asked for, and at longer ones while their requests time out. New
    progress queues a pass over the stage. The rate of all polls is limited, because every change of figures is written: with
    more trainers than that, each is polled less often. Threads and rate are shared fairly by namespaces.

    Args:
        request: Sends the request.
        clock: Monotonic time in seconds.
        arrived: Called with the stage that has new progress, and with the object that is to be woken.
        threads: Number of threads that will call `run`.
    """

    wakes = True

    def __init__(
        self,
        request: trainer_client.Request,
        clock: Callable[[], float],
        arrived: Callable[[Key], None],
        threads: int = POLL_THREADS,
    ) -> None:
        self.threads, self.queue = threads, WorkQueue(clock, workers=threads, rate=POLL_RATE)
        self._request, self._clock, self._arrived = request, clock, arrived
        self._polled: dict[Key, _Polled] = {}
        self._lock = threading.Lock()

    def progress(self, key: Key, url: str) -> Progress | None:
        now = self._clock()
        with self._lock:
            polled = self._polled.get(key)
            if polled is None or polled.url != url:
                polled = self._polled[key] = _Polled(url, now)
                self.queue.add(key)
            polled.wanted = now
            return polled.progress

    def renew(self, key: Key, url: str) -> Progress | None:
        """The newest known progress of a trainer that is polled at this URL, which continues; None for another."""
        with self._lock:
            polled = self._polled.get(key)
            if polled is None or polled.url != url:
                return None
            polled.wanted = self._clock()
            return polled.progress

    def wake(self, key: Key, seconds: float) -> None:
        with self._lock:
            if not self._is_waiting(key):
                self._polled[key] = _Polled("", self._clock())
                self.queue.add(key, seconds)

    def is_known(self, key: Key) -> bool:
        """Whether the trainer is polled, or the object will be woken."""
        with self._lock:
            return key in self._polled

    def is_waiting(self, key: Key) -> bool:
        """Whether the object will be woken."""
        with self._lock:
            return self._is_waiting(key)

    def stop(self, key: Key) -> None:
        with self._lock:
            self._polled.pop(key, None)

    def run(self) -> None:
        """Sends requests until the queue is closed."""
        while (key := self.queue.wait()) is not None:
            self.process(key)

    def process(self, key: Key) -> None:
        """Sends one request, or wakes one object. Never raises, because the thread serves all trainers."""
        with self._lock:
            polled = self._polled.get(key)
            wanted = polled is not None and bool(polled.url) and self._clock() - polled.wanted <= WANTED_SECONDS
            if not wanted:
                self._polled.pop(key, None)
        if polled is None or not wanted:
            self.queue.done(key)
            news = polled is not None and not polled.url
        else:
            news = self._ask(polled)
            self.queue.done(key, polled.interval)
        if news:
            self._arrived(key)

    def _ask(self, polled: _Polled) -> bool:
        """Sends a request. Returns whether the progress has changed."""
        answer, begun = None, self._clock()
        try:
            answer = self._request(polled.url, trainer_client.SECONDS)
        except Exception:
            log.exception("progress of %s", polled.url)
        slow = answer is None and self._clock() - begun > trainer_client.SECONDS / 2
        polled.interval = min(2 * polled.interval, MAX_POLL_SECONDS) if slow else POLL_SECONDS
        progress = trainer_client.parse_progress(answer)
        if progress is None or progress == polled.progress:
            return False
        polled.progress = progress
        return True

    def _is_waiting(self, key: Key) -> bool:
        return key in self._polled and not self._polled[key].url


class ListedPolls:
    """Shared polls for decisions on lists, which may be older than what a pass has seen: it keeps what is polled, adds what is
    not, and stops nothing. Implements Polls.
    """

    wakes = True

    def __init__(self, shared: SharedPolls) -> None:
        self._shared = shared

    def progress(self, key: Key, url: str) -> Progress | None:
        if self._shared.is_known(key):
            return self._shared.renew(key, url)
        return self._shared.progress(key, url)

    def wake(self, key: Key, seconds: float) -> None:
        if not self._shared.is_known(key):
            self._shared.wake(key, seconds)

    def stop(self, key: Key) -> None:
        """Does nothing: the job may have started since."""


def reader(polls: Polls, key: Key) -> Callable[[str], Progress | None]:
    """How the progress of a store job is read for an object, by the URL of the job's page; empty while its pod does not run."""

    def read(url: str) -> Progress | None:
        if url:
            return polls.progress(key, url)
        polls.wake(key, POLL_SECONDS)  # no event reports that its pod runs
        return None

    return read
