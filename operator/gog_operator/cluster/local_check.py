"""The check of a run's tools on this machine: in a thread of the control loop, because a process takes a second to start."""

from __future__ import annotations

import asyncio
import threading
from types import ModuleType

from gog.tool_check.config import CheckConfig
from gog_operator.plan.actions import ToolCheckView


def preload() -> None:
    """Imports in a thread what a check needs (numpy, Pillow, aiohttp), while the servers start."""
    threading.Thread(target=_imported, daemon=True, name="tool-check").start()


def _imported() -> ModuleType:
    from gog.tool_check import check

    return check


class LocalCheck:
    """One check, by its number."""

    def __init__(self) -> None:
        self._number = 0
        self._view = ToolCheckView("absent")
        self._error: BaseException | None = None

    def start(self, number: int, config: CheckConfig) -> None:
        """Starts the check of that number, unless it has been started."""
        if number == self._number:
            return
        self._number, self._view = number, ToolCheckView("running")
        threading.Thread(target=self._run, args=(config,), daemon=True, name="tool-check").start()

    def view(self, number: int) -> ToolCheckView:
        """The check of that number."""
        if self._error is not None:
            raise self._error
        return self._view if number == self._number else ToolCheckView("absent")

    def _run(self, config: CheckConfig) -> None:
        try:
            report = asyncio.run(_imported().check(config))
            self._view = ToolCheckView(report.outcome, report.summary, seconds=report.seconds)
        except BaseException as error:  # noqa: BLE001  raised again in the control loop
            self._error = error
