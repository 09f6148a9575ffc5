"""A child dies with the one that started it, so that `kill -9` of `gog run` leaves nothing eating the processor.

The parent asks for it by an environment variable that holds its process id; the child asks the kernel (Linux) for a
SIGKILL at its parent's death, then looks whether the parent had died already. The wish outlives exec, not fork: what
the child itself starts is found by its mark instead (`cluster/processes.py`). Standard library only: this is the first
thing that a child does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT = "GOG_PARENT"
PR_SET_PDEATHSIG = 1


def tie() -> None:
    """Ties this process to its parent when the environment asks for it; exits at once when the parent is gone."""
    wanted = os.environ.pop(PARENT, "")
    if not wanted.isdigit():
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(wanted):
        sys.exit(f"gog: process {wanted}, which started this one, is gone")
