"""`gog serve policy --runtime vllm`: becomes a vLLM server, with the options that a run's policy needs.

vLLM lives in an environment of its own, because it pins its libraries. $GOG_VLLM_PROGRAM names its program, by default
`vllm` on the path. This process replaces itself with it, so signals, exit code and log are vLLM's own; a small process
beside it waits for /health and then writes the ready file, as every other server does itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from gog import base_model, vllm_options
from gog.errors import ServiceDown, UserError
from gog.spec import VLLM_PROGRAM
from gog_tools.serving import inputs, process

POLL_SECONDS = 0.5
"""Between two questions whether the server is ready."""


def program(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The program of vLLM with leading arguments. Raises UserError if there is none."""
    line = shlex.split(environment.get(VLLM_PROGRAM, "")) or ["vllm"]
    found = shutil.which(line[0])
    if found is None:
        raise UserError(
            f"no program {line[0]}", where=VLLM_PROGRAM, remedy="install vLLM in an environment of its own and name it"
        )
    return [found, *line[1:]]


def free_port(host: str) -> int:
    """A port that is free now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


def announce(url: str, server: int, ready_file: Path) -> None:
    """Writes the ready file once a server is ready; returns without it when its process ends."""
    while True:
        try:
            os.kill(server, 0)
            if urllib.request.urlopen(f"{url}/health", timeout=5).status == 200:
                return process.write_ready_file(ready_file, url)
        except ProcessLookupError:
            return None
        except OSError:  # not listening yet, or not ready
            time.sleep(POLL_SECONDS)


def _announce_beside(url: str, ready_file: Path) -> None:
    """Runs `announce` in a process that is no child of this one, because vLLM would have to wait for its end."""
    server, child = os.getpid(), os.fork()
    if child:
        os.waitpid(child, 0)
    elif os.fork():
        os._exit(0)
    else:
        try:
            announce(url, server, ready_file)
        finally:
            os._exit(0)


def main(argv: list[str]) -> int:
    """Replaces this process with vLLM. Returns an exit code only if that is impossible."""
    parser = argparse.ArgumentParser(prog="gog serve policy --runtime vllm")
    add = parser.add_argument
    add(
        "--base",
        "--model",
        dest="base",
        required=True,
        help="base model: `tiny`, a folder in Hugging Face form, or hf://",
    )
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=0, help="0 takes a free one")
    add("--ready-file", type=Path, help="written once the server is ready")
    add("--store", help="ignored: adapters are loaded from folders")
    add("--options", default="{}", help="options of vLLM as JSON, by their names without dashes")
    add(
        "--role",
        default="policy",
        choices=("policy", "judge"),
        help="judge: an ordinary model, which takes no adapters",
    )
    args = parser.parse_args(argv)
    try:
        if args.base.startswith("s3://"):
            raise UserError("vLLM reads a folder", where="model.base", remedy="fetch the model with `gog move`")
        args.scratch = Path(tempfile.gettempdir()) / "gog-vllm"  # for the lock of a base that is fetched
        folder = inputs.base_model(args.base, args).folder
        if args.role == "policy":
            base_model.check(folder, where="--base")
        port, options = args.port or free_port(args.host), json.loads(args.options)
        line = [*program(), *vllm_options.arguments(str(folder), args.host, port, options, role=args.role)]
    except UserError as error:
        print(f"gog serve policy: {error.sentence()}", file=sys.stderr)
        return 2
    except ServiceDown as error:
        print(f"gog serve policy: {error}", file=sys.stderr)
        return 1
    print(f"gog serve policy: {shlex.join(line)}", file=sys.stderr, flush=True)
    if args.ready_file:
        _announce_beside(f"http://{args.host}:{port}", args.ready_file)
    return os.execve(line[0], line, {**vllm_options.ENVIRONMENT, **os.environ})
