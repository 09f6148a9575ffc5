"""Adapters that an earlier attempt of a stage left on servers and in folders, because it was killed or failed.

A stage unloads its adapters when it ends. An attempt that does not get that far leaves them in the memory of servers that
outlive it, and their files. The next attempt removes them before it samples: everything named after its run and stage
that it has not written itself.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

from gog_recipes.rollout.vllm_replica import Replica

WRITING = ".writing-"
"""Prefix of the folder in which an adapter is written."""


@dataclass(frozen=True)
class Leftovers:
    """The adapters of earlier attempts."""

    stage: str
    """Run and key of the stage, with which the names of its adapters begin (`vllm_weights`)."""
    own: Callable[[], Container[str]]
    """Names of the adapters of this attempt."""

    def is_one(self, name: str) -> bool:
        """Whether an adapter of this name is of an earlier attempt."""
        of_stage = re.fullmatch(rf"{re.escape(self.stage)}-\d+-[0-9a-f]{{12}}(-[a-z_]+-\d+)?", name)
        return of_stage is not None and name not in self.own()

    async def unload(self, replica: Replica) -> None:
        """Unloads them from a server, and removes their files beside it. Raises CallError."""
        for name in filter(self.is_one, await replica.names()):
            await replica.drop(name)

    def delete(self, folder: Path) -> None:
        """Deletes their files, also those that were being written. What cannot be deleted costs space only."""
        for path in folder.glob("*"):
            name = path.name.removeprefix(WRITING)
            if self.is_one(name.rpartition(".")[0] if name != path.name else name):
                shutil.rmtree(path, ignore_errors=True)
