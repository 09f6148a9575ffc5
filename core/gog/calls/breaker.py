"""The circuit breaker: a back end that keeps failing gets no requests for a while.

It opens after many failures in a row, and at once when the account is closed (gog.tool_types.CLOSED_ACCOUNT), because
every further request would fail. After some seconds one request goes through as a test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Breaker:
    """Refuses calls for a while after many failures in a row; then lets one through as a test."""

    failures: int
    """Failed attempts in a row that open it."""
    seconds: float
    """Seconds for which an open breaker refuses."""
    clock: Callable[[], float]
    """Seconds; only differences matter."""
    _in_a_row: int = 0
    """Failed attempts since the last success."""
    _opened: float | None = None
    """When it last opened or let a test through; None while it is closed."""
    _at_once: bool = False
    """Whether it last opened because of the account, not because of many failures."""

    @property
    def refuses(self) -> bool:
        """Whether a call would be refused now. Unlike `admits` it uses up no test."""
        return self._opened is not None and self.clock() - self._opened < self.seconds

    def admits(self) -> bool:
        """Whether a call may be sent now."""
        if self.refuses:
            return False
        if self._opened is not None:
            self._opened = self.clock()  # lets one call through; the next is refused until that one reports
        return True

    def report(self, success: bool, *, at_once: bool = False) -> None:
        """Records one attempt. at_once: opens without waiting for further failures."""
        self._in_a_row = 0 if success else self._in_a_row + 1
        self._at_once = at_once and not success
        if success:
            self._opened = None
        elif at_once or self._in_a_row >= self.failures:
            self._opened = self.clock()

    @property
    def failed_attempts(self) -> int:
        """Consecutive failed attempts since the last success."""
        return self._in_a_row

    @property
    def is_open(self) -> bool:
        return self._opened is not None

    @property
    def reason(self) -> str:
        """Why it is open."""
        return "the account is closed" if self._at_once else "too many failures in a row"
