"""When a failed attempt is tried again, and what is said of its failure.

Waits double from two seconds to five minutes. Exit code 2 means by convention that the input is wrong: trying again
would fail again, so it is not tried. The sentence quotes the log's last telling line, because that is what a person
would look up first.
"""

from __future__ import annotations

import signal
from datetime import datetime, timedelta

FIRST_WAIT = 2.0
LONGEST_WAIT = 300.0
INVALID_INPUT = 2
UNSPOKEN = (-signal.SIGKILL, -signal.SIGTERM)


def wait(failures: int) -> float:
    """Seconds to wait after so many failures."""
    return min(FIRST_WAIT * 2 ** min(failures - 1, 30), LONGEST_WAIT) if failures > 0 else 0.0


def retry_time(failures: int, now: datetime) -> datetime:
    return now + timedelta(seconds=wait(failures))


def overdue(since: datetime | None, limit: int | None, now: datetime) -> bool:
    """Whether more than `limit` seconds have gone by."""
    return since is not None and limit is not None and now - since >= timedelta(seconds=limit)


def why(exit_code: int | None, lines: tuple[str, ...], cause: str = "") -> str:
    """`exit 1: ValueError: no such column`; what was killed from outside had no last word, so nothing is quoted.
    cause: what the platform says, which then takes the place of the exit code."""
    told = last_telling_line(lines) if exit_code not in UNSPOKEN else ""
    end = cause or exit_words(exit_code)
    return f"{end}: {told}" if told else end


def exit_words(code: int | None) -> str:
    if code is None:
        return "ended without an exit code"
    if code >= 0:
        return f"exit {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


def last_telling_line(lines: tuple[str, ...]) -> str:
    """The last line that is neither empty nor decoration, shortened."""
    telling = [line.strip() for line in lines if any(char.isalnum() for char in line)]
    return telling[-1][:300] if telling else ""
