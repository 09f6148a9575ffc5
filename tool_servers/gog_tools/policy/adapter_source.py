"""Where a policy server takes adapters from: one folder or one store.

Every client that reaches the port may name an adapter to load, so a name cannot lead anywhere else: it is a path that
stays under the folder once links are followed, or a checkpoint (`grpo/120`) of the store. Addresses are never accepted.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gog import adapters, base_model, offers, store
from gog.errors import UserError
from gog_tools.serving.errors import RequestError

CHECKPOINT = re.compile(r"[a-z][-a-z0-9]{0,99}/[0-9]{1,9}")


class AdapterSource(Protocol):
    """Finds adapters by the paths that clients send."""

    def resolve(self, path: str) -> Adapter:
        """The adapter of a path, without fetching it.

        Raises:
            RequestError: with status 403 for a path that leads elsewhere.
            UserError: for a path that cannot be read.
        """
        ...


class Adapter(Protocol):
    """One adapter, for one use of it."""

    def acquire(self) -> Path:
        """The adapter's folder, fetched if need be, which may take minutes. Raises UserError."""
        ...

    def release(self) -> None:
        """Ends the use; the folder may be removed."""
        ...


class NoAdapters:
    """The source of a server that was started without one."""

    def resolve(self, path: str) -> Adapter:
        raise RequestError(403, "lora_path: this server loads no adapters (start it with --store or --adapters)")


class Folder:
    """Adapters under one folder, named by their paths."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def resolve(self, path: str) -> Adapter:
        try:
            folder = (self.root / path).resolve()
            inside = all(item.resolve().is_relative_to(self.root) for item in (folder, *folder.glob("*")))
        except (OSError, ValueError) as error:
            raise UserError(str(error), where="lora_path") from None
        if not inside:
            raise RequestError(403, f"lora_path: {path} is not under {self.root}")
        return LocalAdapter(folder)


@dataclass(frozen=True)
class LocalAdapter:
    """An adapter that is used in place."""

    folder: Path
    """Its PEFT folder."""

    def acquire(self) -> Path:
        return self.folder

    def release(self) -> None:
        return None


class Checkpoints:
    """Adapters of a store's checkpoints, fetched into a scratch folder while they are served."""

    def __init__(
        self, opened: Callable[[], store.Store], scratch: Path, base: base_model.Identity | None = None
    ) -> None:
        """Creates a source.

        Args:
            opened: opens the store, which may fail while it is down
            scratch: an empty folder
            base: the base model that is served; adapters of another one are refused
        """
        self.opened, self.scratch, self.base = opened, scratch, base
        self._count = 0

    def resolve(self, path: str) -> Adapter:
        if not CHECKPOINT.fullmatch(path):
            raise RequestError(403, f"lora_path: {path!r} names no checkpoint of the store (write grpo/120)")
        self._count += 1
        return CheckpointAdapter(self.opened, path, self.scratch / f"{self._count}-{offers.name_of(path)}", self.base)


@dataclass(frozen=True)
class CheckpointAdapter:
    """A checkpoint's adapter, in a folder of its own while it is used."""

    opened: Callable[[], store.Store]
    """Opens the store."""
    ref: str
    """The checkpoint, `stage/step`."""
    folder: Path
    """Where it is fetched to."""
    base: base_model.Identity | None = None
    """The base model that is served."""

    def acquire(self) -> Path:
        return adapters.fetch_servable(self.opened(), self.ref, self.folder, base=self.base)

    def release(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
