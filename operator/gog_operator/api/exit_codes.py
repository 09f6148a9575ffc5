"""What a trainer's exit code means, the same on one machine and on a cluster. Pure.

| code                   | meaning                                          | what the plan does            |
|------------------------|--------------------------------------------------|-------------------------------|
| 0                      | ended well                                       | looks for the last checkpoint |
| 2                      | refused its input (`gog.errors.UserError`)       | fails the stage: no retry     |
| 130, SIGINT            | interrupted from outside, mostly by SIGTERM      | next attempt, not a failure   |
| 137, 143, other signal | killed: out of memory, a limit of the platform   | counts a failure, retries     |
| anything else          | a service that stayed down, a library, a bug     | counts a failure, retries     |

A container, a shell and torchrun's launcher (`gog_recipes.runtime.launch`) report signal n as 128 + n. The code does
not show whether the platform caused a signal (preemption, a drained node); pods do (`cluster/pods.py`).
"""

from __future__ import annotations

import signal
from typing import Literal

INTERRUPTED = -signal.SIGINT
BY_OTHERS = (-signal.SIGKILL, -signal.SIGTERM, INTERRUPTED)
"""Codes of a pod that was terminated because another pod of its job ended first."""


def normalized(code: int) -> int:
    """The code with a signal as a negative number, as in Python's subprocess: 137 and -9 both become -9."""
    return 128 - code if 128 < code < 160 else code


def signal_number(code: int | None) -> int | None:
    """The signal that an exit code stands for; None for other codes and for no code."""
    code = None if code is None else normalized(code)
    return -code if code is not None and code < 0 else None


def state(code: int) -> Literal["succeeded", "failed", "lost"]:
    """The state of a job that exited by itself. code: a normalized exit code."""
    if code == 0:
        return "succeeded"
    return "lost" if code == INTERRUPTED else "failed"
