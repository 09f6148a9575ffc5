"""A policy server for tests whose model is a pipe: every completion waits there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gog.completions import Completion, Job
from gog_tools.policy import adapter_source, server
from gog_tools.serving import process


class GateModel:
    def __init__(self, gate: Path) -> None:
        self.gate = gate
        self.adapters: dict[str, str] = {}

    def complete(self, jobs: Sequence[Job]) -> list[Completion | Exception]:
        self.gate.read_bytes()
        return [Completion((1,), [2], [0.0], "done", finish="stop") for _ in jobs]

    def load_adapter(self, name: str, folder: Path) -> None:
        self.adapters[name] = str(folder)

    def unload_adapter(self, name: str) -> None:
        del self.adapters[name]

    def render(self, messages: list[dict[str, Any]]) -> str:
        return str(messages)

    def words(self, tokens: Sequence[int]) -> list[str]:
        return [str(token) for token in tokens]


def build(given: argparse.Namespace) -> Any:
    return server.application(
        server.Policy(GateModel(given.gate), name="base", shelf=adapter_source.Nothing(), batch_size=8)
    )


def main(argv: list[str]) -> int:
    options = process.parser("policy", "For tests.")
    options.add_argument("--gate", type=Path)
    return process.main("policy", options, argv, build)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
