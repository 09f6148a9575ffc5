"""A policy back end for tests whose model is a pipe: every completion waits there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gog.completions import Completion, Job


class GateModel:
    def __init__(self, *, gate: Path) -> None:
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
