"""A child process dies with its parent, so that `kill -9` of `gog run` leaves nothing running.

Problem: a process that is killed cannot end its children. Decision: the parent puts its process id into an environment
variable; the child asks the kernel (Linux) for a SIGKILL at the parent's death, then checks that the parent is still
alive. The setting survives exec but not fork; processes that the child starts are found by their environment instead
(`cluster/processes.py`). Uses the standard library only, because this is the first code that a child runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT = "GOG_PARENT"
"""Environment variable with the process id of the parent."""
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ties this process to its parent if the environment requests it; exits at once if the parent has exited."""
    wanted = os.environ.pop(PARENT, "")
    if not wanted.isdigit():
        return
    arm()
    if os.getppid() != int(wanted):
        sys.exit(f"gog: process {wanted}, which started this one, is gone")


def arm() -> None:
    """Requests SIGKILL when the thread that started this process ends. Does nothing outside of Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
