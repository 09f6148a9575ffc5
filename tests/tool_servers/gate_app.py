"""A server for tests: a POST waits at a pipe and is then answered with `done`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from gog_tools.serving import process
from gog_tools.serving.failures import App, Receive, Scope, Send, drain, reply


def build(given: argparse.Namespace) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await drain(receive)
        if scope["path"] == "/break":
            raise RuntimeError("broken on purpose")
        await asyncio.to_thread(given.gate.read_bytes)
        await reply(send, 200, b"done")

    return app


def main(argv: list[str]) -> int:
    options = process.parser("gate", "For tests.")
    options.add_argument("--gate", type=Path)
    return process.main("gate", options, argv, build)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
