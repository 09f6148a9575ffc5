"""Endpoints' servers on this machine: processes on loopback ports.

A server reports by its ready file that it answers, and where; nothing is polled over HTTP. Each start writes a log of its
own (`logs/<role>/<number>/server.log`), because after a restart the log of the crash is what one needs.
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
"""Between SIGTERM and SIGKILL."""


class LocalServers:
    def __init__(self, register: processes.Processes, logs: Path) -> None:
        self.register, self.logs = register, logs
        self._servers: dict[str, _Server] = {}

    def start(
        self, name: str, log: str, command: Callable[[str], list[str]], now: datetime, env: Mapping[str, str]
    ) -> None:
        """Starts a server; one that runs is left alone.

        Args:
            name: of the endpoint.
            log: name of its folder of logs.
            command: ready file -> command line.
            now: the time of the start.
            env: besides our own environment.
        """
        old = self._servers.get(name)
        if old is not None and old.process.poll() is None:
            return
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
    """The address in a ready file; "" until there is one."""
    try:
        return str(json.loads(ready.read_text())["url"])
    except FileNotFoundError:
        return ""


def next_folder(parent: Path) -> Path:
    """`parent/<n>` with the first number above those in use."""
    used = [int(each.name) for each in parent.glob("[0-9]*") if each.name.isdigit()]
    return parent / str(max(used, default=0) + 1)
