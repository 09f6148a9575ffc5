"""Servers of ToolServers on this machine: processes on loopback ports.

A server writes its URL to a ready file once it accepts requests, so that it need not be polled over HTTP. Each start
has its own log (`logs/<role>/<number>/server.log`), because after a restart the log of the crash is needed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from gog_operator.cluster import files, processes
from gog_operator.plan.actions import ServerView

GRACE_SECONDS = 5.0
"""Seconds between SIGTERM and SIGKILL."""


class LocalServers:
    def __init__(self, register: processes.Processes, logs: Path) -> None:
        self.register, self.logs = register, logs
        self._servers: dict[str, _Server] = {}

    def start(
        self, name: str, log: str, command: Callable[[str], list[str]], now: datetime, env: Mapping[str, str]
    ) -> None:
        """Starts a server, unless it runs already. Workers of one that has exited are killed first.

        Args:
            name: Name of the ToolServer.
            log: Name of its folder below `logs/`.
            command: Builds the command line, given the path of the ready file.
            now: Start time.
            env: Environment variables in addition to our own environment.
        """
        old = self._servers.get(name)
        if old is not None and old.process.poll() is None:
            return
        if old is not None:
            processes.kill_orphans(old.process)
        folder = next_folder(self.logs / log)
        ready = folder / "ready.json"
        with files.as_user_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "server.log").open("wb") as stream:
                process = subprocess.Popen(
                    command(str(ready)),
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
                )
        self.register.record(name, process.pid)
        self._servers[name] = _Server(process, folder / "server.log", ready, now)

    def view(self, name: str) -> ServerView | None:
        server = self._servers.get(name)
        return server.view() if server is not None else None

    def stop(self, name: str) -> None:
        server = self._servers.pop(name, None)
        if server is not None:
            processes.end([server.process], GRACE_SECONDS)
            self.register.forget(name)

    def close(self) -> None:
        processes.end([each.process for each in self._servers.values()], GRACE_SECONDS)
        for name in self._servers:
            self.register.forget(name)
        self._servers.clear()

    def names(self) -> tuple[str, ...]:
        return tuple(self._servers)


class _Server:
    def __init__(self, process: subprocess.Popen[bytes], log: Path, ready: Path, started: datetime) -> None:
        self.process, self.log, self.ready, self.started = process, log, ready, started
        self.url = ""

    def view(self) -> ServerView:
        self.url = self.url or _read_url(self.ready)
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        code = self.process.poll()
        if code is not None:
            lines = processes.tail(self.log)
            return ServerView("exited", self.url, port, self.started, bool(self.url), code, lines)
        return ServerView("ready" if self.url else "starting", self.url, port, self.started, bool(self.url))


def _read_url(ready: Path) -> str:
    """The URL in a ready file; empty until the file exists."""
    try:
        return str(json.loads(ready.read_text())["url"])
    except FileNotFoundError:
        return ""


def next_folder(parent: Path) -> Path:
    """`parent/<n>`, numbered one above the highest number in use."""
    used = [int(each.name) for each in parent.glob("[0-9]*") if each.name.isdigit()]
    return parent / str(max(used, default=0) + 1)
