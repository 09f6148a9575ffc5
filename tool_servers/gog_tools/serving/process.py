"""How every tool server is started, watched and stopped: one way, so that whoever starts them needs to know one.

The port is bound before anything slow is done, so a port in use is said at once; a free port is taken for port 0. It is
listened on at once as well: /healthz answers while an index is built or a model loaded in a thread, /readyz refuses
until the server can do its real work, as does everything else. Only then the ready file appears (whole or not at all)
with the server's address and process id.

SIGTERM stops listening, lets requests in flight finish for a while, and ends with 0: at once after that, whatever a
thread may still be at, since a process that outlives its pod's grace is killed in the middle of something else.

One process a server: more of them are more replicas. No TLS: loopback or a cluster's network policy. A key that
requests have to bear is taken from the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from pydantic import ValidationError

from gog import api_keys
from gog.errors import UserError
from gog.spec import FailureInjection
from gog_tools.serving.failures import App, FailureInjector
from gog_tools.serving.middleware import Shell

KEY = "GOG_API_KEY"
"""Environment: the key that requests have to bear; any request will do without it."""
PARENT_SECONDS = 1.0
"""Between two looks at the parent."""


class Server(uvicorn.Server):
    """uvicorn that prepares its application while it listens, and for whom a SIGTERM is an orderly end."""

    def __init__(
        self, config: uvicorn.Config, prepare: Callable[[], None], end: Callable[[], None], *, parent: int | None
    ) -> None:
        """parent: process with which this one ends."""
        super().__init__(config)
        self.prepare, self.end, self.parent = prepare, end, parent
        self.failure: BaseException | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        threading.Thread(target=self._prepare, daemon=True, name="prepare").start()
        if self.parent is not None:
            self._watch_parent()

    def _watch_parent(self) -> None:
        """So that a killed run leaves nothing behind."""
        if os.getppid() != self.parent:
            self.should_exit = True
        else:
            asyncio.get_running_loop().call_later(PARENT_SECONDS, self._watch_parent)

    def _prepare(self) -> None:
        try:
            self.prepare()
        except BaseException as error:  # noqa: BLE001  raised again by whoever runs the server
            self.failure = error
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.failure is None:
            self.end()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def parser(name: str, summary: str) -> argparse.ArgumentParser:
    """The options that all servers share; each adds its own."""
    options = argparse.ArgumentParser(
        prog=f"gog serve {name}", description=summary, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = options.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 in a container")
    add("--port", type=int, default=0, help="0 takes a free one")
    add("--ready-file", type=Path, help='written once the server answers: {"url": ..., "pid": ...}')
    add("--failures", default="{}", help='failures on purpose: {"rate": 0.05, "kinds": ["429"], "seed": 0}')
    add("--timeout-seconds", type=float, default=30.0, help="longest stall of an injected timeout")
    add("--store", help="store that s3:// data and checkpoints are read from, as JSON: a manifest's spec.store")
    add("--drain-seconds", type=int, default=25, help="how long requests in flight may take to finish after SIGTERM")
    add("--exit-with-parent", action="store_true", help="end when the process that started this one has ended")
    return options


def main(name: str, options: argparse.ArgumentParser, argv: list[str], build: Callable[..., App]) -> int:
    """Parses, builds and serves until told to stop. Returns 0, or 2 with a sentence on stderr for a user's error."""
    try:
        given = options.parse_args(argv)
    except SystemExit as end:  # argparse has said why
        return int(end.code or 0)
    try:
        serve(name, given, build)
    except UserError as error:
        print(f"gog serve {name}: {error.sentence()}", file=sys.stderr)
        return 2
    return 0


def serve(name: str, given: argparse.Namespace, build: Callable[[argparse.Namespace], App]) -> None:
    """Binds, listens, builds the app, serves. Raises UserError for a port in use and whatever `build` finds wrong.

    `build` runs in a thread of its own; given.scratch is a folder that is there as long as the server is. Returns
    never, once the server was told to stop.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    injection = read_injection(given.failures)
    with bind(given.host, given.port) as listener, tempfile.TemporaryDirectory(prefix="gog-serve-") as scratch:
        given.scratch = Path(scratch)
        shell, address = Shell(name, key=api_keys.from_environment(KEY)), url_of(listener)

        def prepare() -> None:
            app = build(given)
            if injection.rate > 0:
                app = FailureInjector(app, injection, timeout_seconds=given.timeout_seconds)
            shell.open(app)
            if given.ready_file:
                write_ready_file(given.ready_file, address)
            print(f"gog serve {name}: {address}", file=sys.stderr, flush=True)

        def end() -> None:
            shutil.rmtree(scratch, ignore_errors=True)
            sys.stderr.flush()
            os._exit(0)

        config = uvicorn.Config(
            shell,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=given.drain_seconds,
            timeout_keep_alive=65,
        )
        server = Server(config, prepare, end, parent=os.getppid() if given.exit_with_parent else None)
        try:
            server.run(sockets=[listener])
        except OSError as error:  # somebody else began to listen between our bind and our listen
            raise UserError(f"cannot listen: {error.strerror}", where=address) from None
        if server.failure is not None:
            raise server.failure


def read_injection(text: str) -> FailureInjection:
    try:
        return FailureInjection.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{field + ': ' if field else ''}{first['msg']}", where="--failures") from None


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: until the server is ready, connections are refused."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        cause = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(
            f"cannot listen: {cause}", where=f"{host}:{port}", remedy="--port 0 takes a free port"
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """An address at which this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def write_ready_file(path: Path, url: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n", encoding="utf-8")
    temporary.replace(path)
