"""Where a policy server may take adapters from: one folder, one store, and nothing else.

Whoever reaches the port may ask for an adapter, so a request names it in words that lead nowhere else: a path that
stays under the folder once links are followed, or a checkpoint (`grpo/120`) of the store. Addresses are never taken.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gog import adapters, store
from gog.errors import UserError
from gog_tools.serving.http_json import Refusal

CHECKPOINT = re.compile(r"[a-z][-a-z0-9]{0,99}/[0-9]{1,9}")


class Shelf(Protocol):
    def find(self, path: str) -> Adapter:
        """The adapter of that path. Quick. Raises Refusal or UserError for one that is not to be taken from here."""
        ...


class Adapter(Protocol):
    """An adapter on a shelf, for one use of it."""

    def take(self) -> Path:
        """Its folder. May take long; raises UserError."""
        ...

    def give_back(self) -> None:
        """The folder is not needed any more."""
        ...


class Nothing:
    """Of a server that was not told where adapters are."""

    def find(self, path: str) -> Adapter:
        raise Refusal(403, "lora_path: this server loads no adapters (start it with --store or --adapters)")


class Folder:
    """Adapters under one folder, named by their paths."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def find(self, path: str) -> Adapter:
        try:
            folder = (self.root / path).resolve()
            inside = all(item.resolve().is_relative_to(self.root) for item in (folder, *folder.glob("*")))
        except (OSError, ValueError) as error:
            raise UserError(str(error), where="lora_path") from None
        if not inside:
            raise Refusal(403, f"lora_path: {path} is not under {self.root}")
        return Kept(folder)


@dataclass(frozen=True)
class Kept:
    """An adapter that is used where it lies."""

    folder: Path

    def take(self) -> Path:
        return self.folder

    def give_back(self) -> None:
        return None


class Checkpoints:
    """Adapters made of a store's checkpoints, which are fetched into a scratch folder while they are served."""

    def __init__(self, opened: Callable[[], store.Store], scratch: Path) -> None:
        self.opened, self.scratch = opened, scratch
        self.count = 0

    def find(self, path: str) -> Adapter:
        if not CHECKPOINT.fullmatch(path):
            raise Refusal(403, f"lora_path: {path!r} names no checkpoint of the store (write grpo/120)")
        self.count += 1
        return Fetched(self.opened, path, self.scratch / f"{self.count}-{adapters.name_of(path)}")


@dataclass(frozen=True)
class Fetched:
    """A checkpoint's adapter, in a folder of its own as long as it is used."""

    opened: Callable[[], store.Store]
    ref: str
    folder: Path

    def take(self) -> Path:
        return adapters.fetch_servable(self.opened(), self.ref, self.folder)

    def give_back(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
