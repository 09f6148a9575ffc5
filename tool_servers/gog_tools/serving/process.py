"""How every tool server starts, is watched and stops.

The port is bound before anything slow happens, so that a port in use is reported at once; port 0 takes a free one. The
server listens at once as well: /healthz answers while an index is built or a model is loaded in a thread; /readyz and
all other pages are a 503 until the server can do its work. Then the ready file appears, whole, with the server's address
and process id.

SIGTERM stops listening, lets requests in flight finish for a while, and exits with 0, immediately after that and
without waiting for threads: a process that outlives its pod's grace period is killed in the middle of something else.

One process per server: scale by replicas. No TLS: use loopback or a cluster's network policy. The API key that requests
must carry comes from the environment.
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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import uvicorn
from pydantic import ValidationError

import gog
from gog import api_keys, metrics, tool_api, wording
from gog.errors import ServiceDown, UserError
from gog.metrics import serving
from gog.spec import FailureInjection
from gog.spec.endpoints import KEY
from gog_tools.serving import arguments, heads, http_json
from gog_tools.serving.failures import App, FailureInjector
from gog_tools.serving.middleware import Middleware

SWITCH_SECONDS = 0.0005
"""How long a thread that computes may keep the interpreter from the event loop. Python's 5 ms add up: the loop waits for the
interpreter several times for each request, health included."""
METRICS_PORT = "GOG_SERVER_METRICS_PORT"
"""Environment variable with the port of /metrics; without it, the page is on the port of the tool."""
PARENT_SECONDS = 1.0
"""Between two checks whether the parent still runs."""


class Server(uvicorn.Server):
    """uvicorn, but it builds its application while it listens and exits with 0 on SIGTERM."""

    def __init__(
        self, config: uvicorn.Config, prepare: Callable[[], None], end: Callable[[], None], *, parent: int | None
    ) -> None:
        """Creates a server.

        Args:
            config: uvicorn's
            prepare: builds the application, in a thread; what it raises ends the server and is kept in `failure`
            end: called after a shutdown in good order
            parent: process with which this one ends; None for none
        """
        super().__init__(config)
        self.prepare, self.end, self.parent = prepare, end, parent
        self.failure: BaseException | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        threading.Thread(target=self._prepare, daemon=True, name="prepare").start()
        if self.parent is not None:
            self._watch_parent()

    def _watch_parent(self) -> None:
        """Ends the server with its parent, so that a killed run leaves no process behind."""
        if os.getppid() != self.parent:
            self.should_exit = True
        else:
            asyncio.get_running_loop().call_later(PARENT_SECONDS, self._watch_parent)

    def _prepare(self) -> None:
        try:
            self.prepare()
        except BaseException as error:  # noqa: BLE001  raised again by `serve`
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
    add("--ready-file", type=Path, help='written once the server is ready: {"url": ..., "pid": ...}')
    add("--failures", default="{}", help='injected failures: {"rate": 0.05, "kinds": ["429"], "seed": 0}')
    add("--timeout-seconds", type=arguments.real(0, 3_600), default=30.0, help="longest stall of an injected timeout")
    add("--store", help="store that s3:// data and checkpoints are read from, as JSON: a manifest's spec.store")
    add(
        "--drain-seconds",
        type=arguments.whole(0, 3_600),
        default=25,
        help="how long requests in flight may take to finish after SIGTERM",
    )
    add("--exit-with-parent", action="store_true", help="end when the process that started this one has ended")
    return options


def main(name: str, options: argparse.ArgumentParser, argv: list[str], build: Callable[..., App]) -> int:
    """Parses the command line, builds the server and serves until SIGTERM.

    Args:
        name: of the server, as in `gog serve NAME`
        options: its command line
        argv: the arguments
        build: makes the application from the parsed arguments

    Returns:
        The exit code: 0; with a sentence on stderr 2 for a user's error, 1 for a store or hub that is down.
    """
    try:
        args = options.parse_args(argv)
    except SystemExit as end:  # argparse has printed why
        return int(end.code or 0)
    try:
        serve(name, args, build)
    except UserError as error:
        print(f"gog serve {name}: {error.sentence()}", file=sys.stderr)
        return 2
    except (ServiceDown, ConnectionError) as error:  # store.Unavailable is one; a restart may find it up again
        print(f"gog serve {name}: {error}", file=sys.stderr)
        return 1
    return 0


def serve(name: str, args: argparse.Namespace, build: Callable[[argparse.Namespace], App]) -> None:
    """Binds, listens, builds the application and serves. SIGTERM exits the process; this function returns only then.

    Args:
        name: of the server
        args: the parsed arguments; `scratch` is added, a folder that exists as long as the server
        build: makes the application, in a thread

    Raises:
        UserError: for a port in use, and what `build` raises.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    injection = read_injection(args.failures)
    sys.setswitchinterval(SWITCH_SECONDS)
    with bind(args.host, args.port) as listener, tempfile.TemporaryDirectory(prefix="gog-serve-") as scratch:
        args.scratch = Path(scratch)
        page = serve_metrics(os.environ, args.host)
        middleware = Middleware(name, key=api_keys.from_environment(KEY), has_metrics=page is None)
        address = url_of(listener)

        def prepare() -> None:
            app = build(args)
            if injection.rate > 0:
                app = FailureInjector(app, injection, timeout_seconds=args.timeout_seconds)
            middleware.open(app)
            if args.ready_file:
                write_ready_file(args.ready_file, address)
            print(f"gog serve {name}: {address}", file=sys.stderr, flush=True)

        def end() -> None:
            shutil.rmtree(scratch, ignore_errors=True)
            sys.stderr.flush()
            os._exit(0)

        config = uvicorn.Config(
            middleware,
            http=heads.HeadProtocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            headers=[(tool_api.SERVER_HEADER, identity(args))],
            timeout_graceful_shutdown=args.drain_seconds,
            timeout_keep_alive=65,
        )
        server = Server(config, prepare, end, parent=os.getppid() if args.exit_with_parent else None)
        try:
            server.run(sockets=[listener])
        except OSError as error:  # another process began to listen after our bind
            raise UserError(f"cannot listen: {error.strerror}", where=address) from None
        if server.failure is not None:
            raise server.failure


def serve_metrics(environment: Mapping[str, str], host: str) -> serving.Server | None:
    """Serves /metrics on the port that the environment names, so that a network policy can tell it from the tool's.

    Returns:
        The server, which ends with the process; None where the environment names no port.

    Raises:
        UserError: the port is in use.
    """
    port = environment.get(METRICS_PORT)
    if not port:
        return None
    try:
        return serving.Server({serving.METRICS: lambda: serving.text(metrics.SERVERS.registry)}, int(port), host)
    except OSError as error:
        raise UserError(f"cannot listen: {error.strerror}", where=f"{METRICS_PORT}={port}") from None


def identity(args: argparse.Namespace) -> str:
    """Version and back end of a server, for a header."""
    backend = str(getattr(args, "backend", "")).encode("ascii", "replace").decode()
    return f"gog/{gog.__version__} {wording.one_line(backend, 60)}".strip()


def read_injection(text: str) -> FailureInjection:
    """The failures that --failures describes. Raises UserError."""
    try:
        return FailureInjection.model_validate_json(text)
    except ValidationError as error:
        raise http_json.invalid(error, where="--failures", prefix="--failures: ") from None


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Raises UserError for an address in use."""
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
    """A URL at which this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def write_ready_file(path: Path, url: str) -> None:
    """Writes the ready file so that it appears whole."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n", encoding="utf-8")
    temporary.replace(path)
