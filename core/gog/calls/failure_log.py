"""A log of failed calls in the servers' own words that does not grow with their number."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gog.tool_types import ToolFailure

LOG_SECONDS = 60.0
"""Seconds between two log lines about one kind of failure of one tool."""


@dataclass
class FailureLog:
    """Logs failures in the servers' own words: the first of each kind at once, then one in LOG_SECONDS with a count."""

    log: logging.Logger
    """Where the lines go."""
    clock: Callable[[], float] = time.monotonic
    """Seconds; only differences matter."""
    _last: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    """Time of the last line, and failures since, by tool and kind."""

    def add(self, failure: ToolFailure) -> None:
        """Logs a failure, or counts it."""
        key, now = (failure.tool, str(failure.kind)), self.clock()
        at, missed = self._last.get(key, (now - LOG_SECONDS, 0))
        if now - at < LOG_SECONDS:
            self._last[key] = (at, missed + 1)
            return
        more = f" ({missed} more since the last line)" if missed else ""
        self.log.warning("%s failed: %s: %s%s", failure.tool, failure.kind, failure.message, more)
        self._last[key] = (now, 0)
