"""A policy back end for tests whose model writes which weights it holds; server and store are the real ones.

A prompt "wait" waits at a pipe, and so does the load of a name in SLOW. A name in REFUSES does not load.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gog import adapters, tensors
from gog.completions import Completion, Job
from gog.errors import UserError


class MarkedModel:
    def __init__(self, folder: Path) -> None:
        assert folder.is_dir()
        self.adapters: dict[str, str] = {}

    def complete(self, jobs: Sequence[Job]) -> list[Completion | Exception]:
        for job in jobs:
            if job.prompt.text == "wait":
                Path(os.environ["GATE"]).read_bytes()
        return [self._completion(job) for job in jobs]

    def _completion(self, job: Job) -> Completion | Exception:
        if job.adapter and job.adapter not in self.adapters:
            return UserError("unloaded under a request")
        return Completion((1,), [2], [0.0], self.adapters.get(job.adapter, "plain"), finish="stop")

    def load_adapter(self, name: str, folder: Path) -> None:
        if name in os.environ.get("SLOW", "").split():
            Path(os.environ["GATE"]).read_bytes()
        if name in os.environ.get("REFUSES", "").split():
            raise UserError("no room for it", where=str(folder))
        weights = tensors.read(folder / adapters.WEIGHTS)
        self.adapters[name] = str(round(float(sum(values.sum() for _, values in weights.values()))))

    def unload_adapter(self, name: str) -> None:
        self.adapters.pop(name, None)

    def render(self, messages: list[dict[str, Any]]) -> str:
        return str(messages)

    def words(self, tokens: Sequence[int]) -> list[str]:
        return [str(token) for token in tokens]
