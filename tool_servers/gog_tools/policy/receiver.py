"""`gog serve policy --runtime receiver`: brings adapters to a vLLM in the same pod, which reads folders only.

A trainer uploads each version of the policy to every replica, because its versions are newer than the store's
checkpoints and replicas share no disk. The control plane names a checkpoint, which is fetched from the store. Either
answers with the path that vLLM is then asked to load.

A vLLM that restarts has lost its adapters. So this process also follows a file that names the checkpoint to be served:
until vLLM lists it, /adapters/ready is a 503, which keeps the pod out of its Service.

Not here: loading versions that are trained (their trainer does and proves that), TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import threading
import urllib.error
import urllib.request
from pathlib import Path

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict

from gog import base_model, offers, store
from gog.errors import UserError
from gog_tools.policy.adapter_source import CHECKPOINT
from gog_tools.policy.arrivals import Arrivals
from gog_tools.serving import http_json, inputs, process
from gog_tools.serving.errors import RequestError, Unavailable

NAME = "policy"
FOLLOW_SECONDS = 2.0
"""Between two looks at the version and at vLLM's list."""
TIMEOUT_SECONDS = 300.0
"""Of a request to vLLM, which may load an adapter."""
MODELS, LOAD = "/v1/models", "/v1/load_lora_adapter"


class Commit(BaseModel):
    """Body of a request for an adapter to appear: what was uploaded, or a checkpoint."""

    model_config = ConfigDict(extra="forbid")
    sha256: dict[str, str] = {}
    """Hash of each uploaded file."""
    ref: str = ""
    """Checkpoint of the store, `grpo/120`."""


class Follower:
    """Keeps the checkpoint that a file names loaded in vLLM."""

    def __init__(self, arrivals: Arrivals, version: Path, server: str) -> None:
        """Prepares the follower.

        Args:
            arrivals: fetches checkpoints
            version: file with the checkpoint's name; empty for none
            server: base URL of vLLM
        """
        self.arrivals, self.version, self.server = arrivals, version, server.rstrip("/")
        self.is_ready = False
        self._served = ""

    def run(self, stop: threading.Event) -> None:
        """Follows until the event is set."""
        while not stop.is_set():
            try:
                self.step()
            except (UserError, RequestError, ConnectionError, OSError, ValueError) as error:
                logging.getLogger(__name__).warning("%s", error)
            stop.wait(FOLLOW_SECONDS)

    def step(self) -> None:
        """Makes one pass: loads the version where vLLM lacks it, then reports whether it serves one."""
        wanted = self.version.read_text(encoding="utf-8").split()
        if not wanted:
            self.is_ready = True
            return
        for each in wanted:
            if not CHECKPOINT.fullmatch(each):
                raise UserError(f"{each!r} names no checkpoint", where=str(self.version))
        names = self._names()
        self.is_ready = self._served in names
        for each in wanted:
            if (name := offers.name_of(each)) not in names:
                self._post(LOAD, lora_name=name, lora_path=str(self.arrivals.fetch(each)))
        names = self._names()
        if names.issuperset(map(offers.name_of, wanted)):
            self._served, self.is_ready = offers.name_of(wanted[0]), True

    def _names(self) -> set[str]:
        try:
            with urllib.request.urlopen(self.server + MODELS, timeout=TIMEOUT_SECONDS) as answer:
                return {str(each["id"]) for each in json.load(answer)["data"]}
        except OSError:
            self.is_ready = False
            raise

    def _post(self, path: str, **fields: str) -> None:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.server + path, json.dumps(fields).encode(), headers)
        try:
            urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
        except urllib.error.HTTPError as error:
            raise ConnectionError(f"{path}: {error.code} {error.read(300).decode(errors='replace')}") from None


def application(arrivals: Arrivals, follower: Follower | None) -> FastAPI:
    """The receiver's application. follower: None for a server that starts without a version."""
    app = http_json.application("gog adapters")

    @app.get("/adapters/ready")
    async def ready() -> Response:
        if follower is None or follower.is_ready:
            return http_json.reply({"status": "ready"})
        raise Unavailable("the version is not loaded yet", retry_after=FOLLOW_SECONDS)

    @app.get("/adapters")
    async def listing() -> Response:
        found = await asyncio.to_thread(arrivals.names)
        return http_json.reply({"adapters": {name: str(arrivals.folder / name) for name in found}})

    @app.put("/adapters/{name}/{file}")
    async def append(name: str, file: str, request: Request, offset: int = 0) -> Response:
        part = await request.body()
        return http_json.reply({"size": await asyncio.to_thread(arrivals.append, name, file, offset, part)})

    @app.post("/adapters/{name}")
    async def commit(name: str, request: Request) -> Response:
        body = await http_json.read(request, Commit)
        return http_json.reply({"path": str(await asyncio.to_thread(_commit, arrivals, name, body))})

    @app.delete("/adapters/{name}")
    async def remove(name: str) -> Response:
        await asyncio.to_thread(arrivals.remove, name)
        return http_json.reply({})

    return app


def _commit(arrivals: Arrivals, name: str, body: Commit) -> Path:
    if not body.ref:
        return arrivals.commit(name, body.sha256)
    if not CHECKPOINT.fullmatch(body.ref) or name != offers.name_of(body.ref):
        raise RequestError(403, f"ref: {body.ref!r} names no checkpoint called {name}")
    try:
        return arrivals.fetch(body.ref)
    except store.Unavailable as error:
        raise Unavailable(str(error)) from None


def build(args: argparse.Namespace) -> FastAPI:
    """The application of a command line. Raises UserError."""
    identity = None
    if args.base:
        base_model.check(args.base, where="--base")
        identity = base_model.Identity(str(args.base), base_model.fingerprint(args.base))
    spec = inputs.store_spec(args.store) if args.store else None
    arrivals = Arrivals(args.folder, (lambda: store.open_store(spec)) if spec is not None else None, identity)
    follower = Follower(arrivals, args.version, args.server) if args.version else None
    if follower is not None:
        threading.Thread(target=follower.run, args=(threading.Event(),), daemon=True, name="follow").start()
    return application(arrivals, follower)


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = process.parser("policy --runtime receiver", "Brings adapters to a vLLM in the same pod.")
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="folder that vLLM reads under the same path")
    add("--base", type=Path, help="folder of the base model; checkpoints of another one are refused")
    add("--version", type=Path, help="file with the checkpoint that vLLM has to serve: grpo/120")
    add("--server", default="http://127.0.0.1:8080", help="base URL of vLLM")
    return parser


def main(argv: list[str]) -> int:
    """`gog serve policy --runtime receiver`. Returns the exit code."""
    return process.main(NAME, options(), argv, build)
