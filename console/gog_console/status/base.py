"""Interface of a display. It only reads objects; the control loop does not depend on it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol

from gog_operator.api.objects import Object
from gog_operator.plan.actions import Event


class Display(Protocol):
    """Shows a run while `gog run` drives it."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def event(self, thing: Object, event: Event, now: datetime) -> None:
        """Called for each event of an object."""

    def update(self) -> None:
        """Called after every pass of the control loop."""

    def stopping(self) -> None:
        """Called when an interruption was received, before processes are ended."""

    def finished(self, root: Object, report: Path | None) -> None:
        """Called at the end. report: path of the report; None when it could not be written."""

    def paused(self, root: Object) -> None:
        """Called when the run was interrupted or suspended; shows how to resume it."""
