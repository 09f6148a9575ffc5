"""What a display is told. It reads objects; nothing that decides anything knows that there is one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol

from gog_operator.api.objects import Object
from gog_operator.plan.actions import Event


class Display(Protocol):
    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def event(self, thing: Object, event: Event, now: datetime) -> None: ...

    def update(self) -> None:
        """After every pass."""

    def stopping(self) -> None:
        """An interruption was noticed; processes are being ended."""

    def finished(self, root: Object, report: Path | None) -> None: ...

    def paused(self, root: Object) -> None:
        """Interrupted or suspended: says how to go on."""
