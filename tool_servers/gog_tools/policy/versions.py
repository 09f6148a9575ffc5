"""Which weights a policy server has under which name, and for how long.

A name stands for the same weights for ever: whoever caches by name would else mix two policies, so a name that was
given away is only ever given to the same bytes again. The name `policy` stands for the default version, looked up when
a request arrives and not later; a client that names a version gets it until it is unloaded, and a request that is under
way when that happens is finished first. A load goes on when the client that asked has given up waiting; who asks for
the same again waits for the same load, and learns how it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gog import adapters
from gog.completions import Model
from gog.errors import UserError
from gog_tools.policy.adapter_source import Adapter, Shelf
from gog_tools.serving.http_json import Refusal

ALIAS = "policy"
"""What stands for the default version in requests."""


@dataclass(frozen=True)
class Loading:
    path: str
    task: asyncio.Task[None]


class Versions:
    """Adapters by name on one model. thread: the only one that touches the model. base: the plain model's name."""

    def __init__(self, model: Model, thread: Executor, shelf: Shelf, *, base: str) -> None:
        if base == ALIAS:
            raise UserError(
                f"{ALIAS!r} stands for the default version", where="--name", remedy="name the base otherwise"
            )
        self.model, self.thread, self.shelf, self.base = model, thread, shelf, base
        self.default = base
        self.paths: dict[str, str] = {}
        """What each loaded adapter was asked for by, in the order of loading."""
        self.loading: dict[str, Loading] = {}
        self.retired: set[str] = set()
        """Unloaded, but still at work for requests that came before."""
        self._taken: dict[str, Adapter] = {}
        self._digests: dict[str, bytes] = {}
        self._flying: Counter[str] = Counter()

    def names(self) -> list[str]:
        return [self.base, *(name for name in self.paths if name not in self.retired)]

    @contextlib.asynccontextmanager
    async def wearing(self, model: str) -> AsyncIterator[str]:
        """The name of the version that a request's model stands for, kept loaded meanwhile. Raises Refusal."""
        name = self.default if model in ("", ALIAS) else model
        if name not in self.names():
            raise Refusal(404, f"model: there is no {name!r} here (see /v1/models, or load it as an adapter)")
        self._flying[name] += 1
        try:
            yield name
        finally:
            self._flying[name] -= 1
            if name in self.retired and not self._flying[name]:
                await self._drop(name)

    async def load(self, name: str, path: str, gone: Callable[[], Awaitable[bool]]) -> None:
        """Makes an adapter available. Raises Refusal for a name in use, UserError for what is no adapter.

        gone: whether the client has given up by now; then a failure is kept for who asks next.
        """
        found = self.shelf.find(path)
        if name == ALIAS or name in self.names() or name in self.retired:
            raise Refusal(409, f"lora_name: {name!r} is in use (give each adapter a new name)")
        under_way = self.loading.get(name)
        if under_way is None:
            under_way = self.loading[name] = Loading(path, asyncio.create_task(self._load(name, path, found)))
        elif under_way.path != path:
            raise Refusal(409, f"lora_name: {under_way.path} is being loaded as {name!r}")
        try:
            await asyncio.shield(under_way.task)
        except Exception:
            if not await gone():
                self.loading.pop(name, None)
            raise

    async def _load(self, name: str, path: str, found: Adapter) -> None:
        folder = await self._take(path, found)
        try:
            digest = await asyncio.to_thread(_digest, folder)
            if self._digests.get(name, digest) != digest:
                raise Refusal(409, f"lora_name: {name!r} stood for other weights before (give each a new name)")
            await self._in_thread(self.model.load_adapter, name, folder)
        except BaseException:
            await asyncio.to_thread(found.give_back)
            raise
        self.loading.pop(name, None)
        self._keep(name, path, found, digest)

    def start_with(self, path: str) -> None:
        """Loads a version and makes it the default, before anything is served. Raises UserError or Refusal."""
        found, name = self.shelf.find(path), adapters.name_of(path)
        folder = found.take()
        self.model.load_adapter(name, folder)
        self._keep(name, path, found, _digest(folder))
        self.default = name

    def _keep(self, name: str, path: str, taken: Adapter, digest: bytes) -> None:
        self.paths[name], self._taken[name], self._digests[name] = path, taken, digest

    async def _take(self, path: str, found: Adapter) -> Path:
        try:
            return await asyncio.to_thread(found.take)
        except (Refusal, UserError):
            raise
        except Exception as error:
            logging.getLogger(__name__).exception("%s cannot be fetched", path)
            raise Refusal(503, f"{path} cannot be fetched now: {type(error).__name__}: {error}") from error

    async def unload(self, name: str) -> None:
        """No further request gets it; its weights leave when the last one before has been answered. Raises Refusal."""
        if name == self.base or name not in self.names():
            raise Refusal(404, f"lora_name: no adapter {name!r} is loaded")
        if name == self.default:
            raise Refusal(409, f"lora_name: {name!r} is the default (make another one that first)")
        self.retired.add(name)
        if not self._flying[name]:
            await self._drop(name)

    async def _drop(self, name: str) -> None:
        await self._in_thread(self.model.unload_adapter, name)
        self.retired.discard(name)
        self.paths.pop(name, None)
        taken = self._taken.pop(name, None)
        if taken is not None:
            await asyncio.to_thread(taken.give_back)

    def use(self, name: str) -> None:
        """Makes a version the default. Raises Refusal when it is not loaded."""
        if name not in self.names():
            raise Refusal(404, f"model: there is no {name!r} here (load it first)")
        self.default = name

    async def _in_thread(self, work: Any, *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self.thread, work, *arguments)


def _digest(folder: Path) -> bytes:
    """Of the names and bytes of a folder's files."""
    digest = hashlib.blake2b(digest_size=32)
    for path in sorted(folder.glob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                digest.update(f"{path.name}\n".encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.digest()
