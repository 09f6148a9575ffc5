"""Versions of the policy that a server has loaded, by name.

A name always denotes the same weights, because a client that caches by name would otherwise mix two policies. A name
that was used before can only be loaded again with the same bytes. The name `policy` denotes the default version at the
time of a request. A version is available until it is unloaded, which waits for its requests in flight. A load continues
if its client disconnects; another request for the same load waits for it and gets its result.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gog import offers
from gog.completions import Model
from gog.errors import UserError
from gog_tools.policy.adapter_source import Adapter, AdapterSource
from gog_tools.serving.errors import RequestError, Unavailable

ALIAS = "policy"
"""The name of the default version in requests."""


@dataclass(frozen=True)
class Load:
    """An adapter that is being loaded."""

    path: str
    """What the client asked for."""
    task: asyncio.Task[None]
    """Ends when the adapter is served, or with the reason why it is not."""


class Versions:
    """Adapters by name on one model."""

    def __init__(self, model: Model, executor: Executor, source: AdapterSource, *, base: str) -> None:
        """Creates the versions of a model without adapters.

        Args:
            model: holds the adapters
            executor: its only thread is the one that touches the model
            source: where adapters come from
            base: name of the plain model

        Raises:
            UserError: when base is ALIAS.
        """
        if base == ALIAS:
            raise UserError(
                f"{ALIAS!r} is reserved for the default version", where="--name", remedy="give the base another name"
            )
        self.model, self.executor, self.source, self.base = model, executor, source, base
        self.default = base
        self.paths: dict[str, str] = {}
        """The path that each loaded adapter was asked for by, in the order of loading."""
        self.loading: dict[str, Load] = {}
        self.retired: set[str] = set()
        """Unloaded versions that still serve requests which came before."""
        self._acquired: dict[str, Adapter] = {}
        self._digests: dict[str, bytes] = {}
        self._in_flight: Counter[str] = Counter()

    def names(self) -> list[str]:
        """The versions that requests can name, the base first."""
        return [self.base, *(name for name in self.paths if name not in self.retired)]

    def acquire(self, model: str) -> str:
        """Keeps the version that a request names loaded until `release`.

        Args:
            model: a version; empty or ALIAS for the default

        Returns:
            The name of the version.

        Raises:
            RequestError: with status 404 for an unknown version.
        """
        name = self.default if model in ("", ALIAS) else model
        if name not in self.names():
            raise RequestError(404, f"model: there is no {name!r} here (see /v1/models, or load it as an adapter)")
        self._in_flight[name] += 1
        return name

    async def release(self, name: str) -> None:
        """Ends a request; drops the version when it is retired and this was its last one."""
        self._in_flight[name] -= 1
        if name in self.retired and not self._in_flight[name]:
            await self._drop(name)

    async def load(self, name: str, path: str, disconnected: Callable[[], Awaitable[bool]]) -> None:
        """Makes an adapter available.

        Args:
            name: under which it is served
            path: what the source resolves
            disconnected: whether the client is gone; a failure is then kept for the next client that asks

        Raises:
            RequestError: with status 409 for a name in use, 403 for a path outside the source.
            UserError: for what is not an adapter of this model.
            Unavailable: when it cannot be fetched now.
        """
        adapter = self.source.resolve(path)
        if name == ALIAS or name in self.names() or name in self.retired:
            raise RequestError(409, f"lora_name: {name!r} is in use (give each adapter a new name)")
        current = self.loading.get(name)
        if current is None:
            current = self.loading[name] = Load(path, asyncio.create_task(self._load(name, path, adapter)))
        elif current.path != path:
            raise RequestError(409, f"lora_name: {current.path} is being loaded as {name!r}")
        try:
            await asyncio.shield(current.task)
        except Exception:
            if not await disconnected():
                self.loading.pop(name, None)
            raise

    async def _load(self, name: str, path: str, adapter: Adapter) -> None:
        folder = await self._fetch(path, adapter)
        try:
            digest = await asyncio.to_thread(_digest, folder)
            if self._digests.get(name, digest) != digest:
                raise RequestError(409, f"lora_name: {name!r} stood for other weights before (give each a new name)")
            await self._in_executor(self.model.load_adapter, name, folder)
        except BaseException:
            await asyncio.to_thread(adapter.release)
            raise
        self.loading.pop(name, None)
        self._keep(name, path, adapter, digest)

    def start_with(self, path: str) -> None:
        """Loads a version and makes it the default, before anything is served. Raises UserError or RequestError."""
        adapter, name = self.source.resolve(path), offers.name_of(path)
        folder = adapter.acquire()
        self.model.load_adapter(name, folder)
        self._keep(name, path, adapter, _digest(folder))
        self.default = name

    def _keep(self, name: str, path: str, adapter: Adapter, digest: bytes) -> None:
        self.paths[name], self._acquired[name], self._digests[name] = path, adapter, digest

    async def _fetch(self, path: str, adapter: Adapter) -> Path:
        try:
            return await asyncio.to_thread(adapter.acquire)
        except (RequestError, UserError):
            raise
        except Exception as error:
            logging.getLogger(__name__).exception("%s cannot be fetched", path)
            raise Unavailable(f"{path} cannot be fetched now: {type(error).__name__}: {error}") from error

    async def unload(self, name: str) -> None:
        """Ends a version for new requests; its weights are dropped once the requests under way are answered.

        Raises:
            RequestError: with status 404 for a name that is not loaded, 409 for the default.
        """
        if name == self.base or name not in self.names():
            raise RequestError(404, f"lora_name: no adapter {name!r} is loaded")
        if name == self.default:
            raise RequestError(409, f"lora_name: {name!r} is the default (make another one the default first)")
        self.retired.add(name)
        if not self._in_flight[name]:
            await self._drop(name)

    async def _drop(self, name: str) -> None:
        await self._in_executor(self.model.unload_adapter, name)
        self.retired.discard(name)
        self.paths.pop(name, None)
        adapter = self._acquired.pop(name, None)
        if adapter is not None:
            await asyncio.to_thread(adapter.release)

    def set_default(self, name: str) -> None:
        """Makes a version the default. Raises RequestError with status 404 when it is not loaded."""
        if name not in self.names():
            raise RequestError(404, f"model: there is no {name!r} here (load it first)")
        self.default = name

    async def _in_executor(self, work: Any, *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self.executor, work, *arguments)


def _digest(folder: Path) -> bytes:
    """Of the names and contents of a folder's files."""
    digest = hashlib.blake2b(digest_size=32)
    for path in sorted(folder.glob("*")):
        if path.is_file():
            with path.open("rb") as stream:
                digest.update(f"{path.name}\n".encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.digest()
