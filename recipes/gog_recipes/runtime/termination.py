"""The termination message of a stage's pod, which Kubernetes keeps when the container has ended.

A stage that ends well leaves its progress. One that fails leaves the reason in one line: in the log it would be followed
by the lines of torchrun and of other ranks, which fail because of it. For the same reason the first message stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

FILE = "GOG_TERMINATION_LOG"
"""Environment: path of the message. Outside of pods it is not set."""
MAX_CHARACTERS = 1000
"""Kubernetes cuts messages at 4096 bytes."""


def leave(text: str, environment: Mapping[str, str] = os.environ) -> None:
    """Writes the message, unless there is one already or no pod to leave it for."""
    if not environment.get(FILE):
        return
    path = Path(environment[FILE])
    if not path.exists() or not path.stat().st_size:
        path.write_text(text, encoding="utf-8")


def leave_reason(reason: str, environment: Mapping[str, str] = os.environ) -> None:
    """Leaves why the stage failed, in one line."""
    leave(" ".join(reason.split())[:MAX_CHARACTERS], environment)
