"""When a failed attempt is retried, and how its failure is described.

Exit codes of a stage:
    0        its last checkpoint is committed;
    2        the input is wrong (`gog.errors.UserError`): a retry would fail again, so there is none;
    128 + n  it was ended by signal n;
    other    it failed, or a service was down for too long (`gog.errors.ServiceDown`): it is retried from its last
             checkpoint, up to `backoffLimit` times, after a delay that doubles from 2 seconds to 5 minutes.
An attempt that was interrupted (suspended, preempted, lost with its machine) is continued by the next one and does not
count as failed.
"""

from __future__ import annotations

import signal
from datetime import datetime, timedelta

from gog import catalog
from gog_operator.api import exit_codes
from gog_operator.api.objects import StageStatus

FIRST_DELAY = 2.0
"""Seconds before the first retry."""
LONGEST_DELAY = 300.0
"""Seconds before a retry at most."""
INVALID_INPUT = 2
"""Exit code of a program that refuses its input."""
_QUOTED = 300
"""Characters of a log line that a message quotes at most."""


def delay(failures: int) -> float:
    """Seconds before the retry after so many failures."""
    return min(FIRST_DELAY * 2 ** min(failures - 1, 30), LONGEST_DELAY) if failures > 0 else 0.0


def retry_time(failures: int, now: datetime) -> datetime:
    """When the attempt after so many failures begins."""
    return now + timedelta(seconds=delay(failures))


def overdue(since: datetime | None, limit: int | None, now: datetime) -> bool:
    """Whether more than `limit` seconds have passed since a time; no time or no limit is never overdue."""
    return since is not None and limit is not None and now - since >= timedelta(seconds=limit)


def has_ended(status: StageStatus) -> bool:
    """Whether the newest attempt's end is known already, as after a suspension: the time since then is none of its own."""
    return status.ended is not None and status.ended.attempt == status.attempt


def describe(exit_code: int | None, lines: tuple[str, ...], cause: str = "") -> str:
    """Why a program ended: `exit 1: ValueError: no such column`.

    Args:
        exit_code: Exit code, negative or above 128 for a signal.
        lines: Last lines of its log. The log of a program that was killed from outside explains nothing, so it is not
            quoted.
        cause: Why the platform ended it; replaces the exit code.
    """
    number = exit_codes.signal_number(exit_code)
    quoted = "" if number in (signal.SIGKILL, signal.SIGTERM) else last_line(lines)
    end = cause or describe_exit(exit_code)
    return f"{end}: {quoted}" if quoted else end


def describe_exit(code: int | None) -> str:
    """An exit code in words.

    >>> [describe_exit(code) for code in (1, -9, 143, None)]
    ['exit 1', 'killed by SIGKILL, possibly out of memory', 'killed by SIGTERM', 'ended without an exit code']
    """
    number = exit_codes.signal_number(code)
    if code is None:
        return "ended without an exit code"
    if number is None:
        return f"exit {code}"
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"killed by {name}" + (", possibly out of memory" if name == "SIGKILL" else "")


def resumption(kind: str, checkpoint: str) -> str:
    """What the next attempt of a stage starts from, as the end of a sentence.

    Stages that play episodes keep a journal, which also holds the work since the newest checkpoint.

    Args:
        kind: Name of the stage: `grpo`.
        checkpoint: Its newest checkpoint; empty for none.
    """
    has_journal = any(stage.uses_tools for stage in catalog.STAGES if stage.name == kind)
    if checkpoint:
        return f"resumes from {checkpoint}" + (" and its journal" if has_journal else "")
    return "takes over what its journal holds" if has_journal else "starts from the beginning"


def last_line(lines: tuple[str, ...]) -> str:
    """The last line of a log that has a letter or a digit, shortened to 300 characters."""
    informative = [line.strip() for line in lines if any(char.isalnum() for char in line)]
    return informative[-1][:_QUOTED] if informative else ""
