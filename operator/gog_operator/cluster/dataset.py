"""The process that generates the embedded world on this machine before any stage or server reads it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from gog import spec as settings
from gog_operator.cluster import files
from gog_operator.cluster.processes import Processes, end, tail
from gog_operator.plan import attempts
from gog_operator.plan.actions import DataView

NAME = "data"
GRACE_SECONDS = 2.0
"""Seconds between SIGTERM and SIGKILL."""


class DatasetMaker:
    """Runs `gog data` once per control loop. `gog data` keeps a finished world, so repeating it is cheap."""

    def __init__(self, folder: Path, register: Processes) -> None:
        self.folder, self.register = folder, register
        self.dataset = folder / "data"
        self.log = folder / "logs" / NAME / "data.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, program: tuple[str, ...], world: settings.WorldSpec) -> None:
        if self._process is not None:
            return
        line = [*program, "data", "--world", world.model_dump_json(exclude_unset=True), "--out", str(self.dataset)]
        with files.as_user_error(self.log.parent):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, **self.register.environment()},
                )
        self.register.record(NAME, self._process.pid)

    def view(self) -> DataView:
        if self._process is None:
            return DataView("absent")
        code = self._process.poll()
        if code is None:
            return DataView("preparing")
        self.register.forget(NAME)
        if code:
            return DataView("failed", message=attempts.describe(code, tail(self.log)))
        return DataView("ready", settings.DataSpec(path=str(self.dataset)))

    def close(self) -> None:
        if self._process is not None:
            end([self._process], GRACE_SECONDS)
