"""Where a policy server may take adapters from: one folder, one store, and nothing else.

Whoever reaches the port may ask for an adapter, so a request names it in words that lead nowhere else: a path that
stays under the folder once links are followed, or a checkpoint (`grpo/120`) of the store. Addresses are never taken.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gog import adapters, store
from gog.errors import UserError
from gog_tools.bodies import Refusal

CHECKPOINT = re.compile(r"[a-z][-a-z0-9]{0,99}/[0-9]{1,9}")


class Shelf(Protocol):
    def check(self, path: str) -> None:
        """Raises Refusal or UserError for a path that is not to be taken from here. Quick."""
        ...

    def take(self, path: str) -> Path:
        """The adapter's folder. May take long; raises UserError."""
        ...

    def give_back(self, folder: Path) -> None:
        """The folder is not needed any more."""
        ...


class Nothing:
    """Of a server that was not told where adapters are."""

    def check(self, path: str) -> None:
        raise Refusal(403, "lora_path: this server loads no adapters (start it with --store or --adapters)")

    def take(self, path: str) -> Path:
        raise NotImplementedError

    def give_back(self, folder: Path) -> None:
        raise NotImplementedError


class Folder:
    """Adapters under one folder, named by their paths."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def check(self, path: str) -> None:
        try:
            folder = (self.root / path).resolve()
            inside = all(item.resolve().is_relative_to(self.root) for item in (folder, *folder.glob("*")))
        except (OSError, ValueError) as error:
            raise UserError(str(error), where="lora_path") from None
        if not inside:
            raise Refusal(403, f"lora_path: {path} is not under {self.root}")

    def take(self, path: str) -> Path:
        self.check(path)
        return (self.root / path).resolve()

    def give_back(self, folder: Path) -> None:
        return None


class Checkpoints:
    """Adapters made of a store's checkpoints, which are fetched into a scratch folder while they are served."""

    def __init__(self, opened: Callable[[], store.Store], scratch: Path) -> None:
        self.opened, self.scratch = opened, scratch
        self.count = 0

    def check(self, path: str) -> None:
        if not CHECKPOINT.fullmatch(path):
            raise Refusal(403, f"lora_path: {path!r} names no checkpoint of the store (write grpo/120)")

    def take(self, path: str) -> Path:
        self.check(path)
        self.count += 1
        return adapters.fetch_servable(self.opened(), path, self.scratch / f"{self.count}-{adapters.name_of(path)}")

    def give_back(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
