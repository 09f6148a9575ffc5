"""Delivers adapters to replicas that share no folder with the trainer, through the receiver beside each vLLM.

`gog serve policy --runtime receiver` takes an adapter in parts and answers with the path that vLLM reads it at. Its hashes
are compared there, and a name never changes its content. The first rank has the files; the others wait until they
have arrived.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from gog import adapters, tool_transport, wording
from gog.errors import UserError
from gog.tool_types import CallError, FailureKind

FILES = (adapters.CONFIG, adapters.WEIGHTS)
"""Files of an adapter."""
PART = 16 << 20
"""Bytes of one request."""
POLL_SECONDS = 1.0
"""Between two looks whether an adapter that another rank uploads has arrived."""


def address(server: str, port: int) -> str:
    """URL of the receiver beside a server.

    >>> address("http://10.0.0.7:8080", 8081)
    'http://10.0.0.7:8081'
    """
    host = urlsplit(server).hostname or ""
    return f"{urlsplit(server).scheme}://{f'[{host}]' if ':' in host else host}:{port}"


@dataclass(frozen=True)
class Receiver:
    """The receiver beside one server."""

    url: str
    """Its base URL."""
    session: aiohttp.ClientSession
    """Open for as long as it is used."""
    deadline_seconds: float
    """Of one request."""
    key: str = ""
    """API key; empty where it requires none."""

    async def deliver(self, name: str, folder: Path) -> str:
        """Makes an adapter available to the server.

        Args:
            name: of the adapter, which belongs to its content.
            folder: its files, which only the first rank's machine has.

        Returns:
            The path at which the server reads it.

        Raises:
            CallError: a transient failure; also where another rank has not delivered it within the deadline.
            UserError: the receiver refuses it.
        """
        there = await self.names()
        until = time.monotonic() + self.deadline_seconds
        while name not in there and not await asyncio.to_thread(folder.is_dir):
            if time.monotonic() > until:
                raise CallError(FailureKind.CONNECTION, f"{self.url}: {name} has not arrived yet")
            await asyncio.sleep(POLL_SECONDS)
            there = await self.names()
        if name in there:
            return there[name]
        hashes = {file: await self._upload(name, folder / file) for file in FILES}
        answer = await self._send("POST", f"/adapters/{quote(name)}", json.dumps({"sha256": hashes}).encode())
        return str(answer["path"])

    async def names(self) -> dict[str, str]:
        """Path of each adapter that has arrived, by name. Raises CallError and UserError."""
        found = (await self._send("GET", "/adapters"))["adapters"]
        return {str(name): str(path) for name, path in found.items()}

    async def remove(self, name: str) -> None:
        """Removes an adapter. What cannot be removed is, when others arrive."""
        try:
            await self._send("DELETE", f"/adapters/{quote(name)}")
        except (CallError, UserError):
            return

    async def _upload(self, name: str, path: Path) -> str:
        """Sends a file in parts. Returns its SHA-256."""
        digest, offset = hashlib.sha256(), 0
        with await asyncio.to_thread(path.open, "rb") as stream:
            while part := await asyncio.to_thread(stream.read, PART):
                await asyncio.to_thread(digest.update, part)
                await self._send("PUT", f"/adapters/{quote(name)}/{path.name}?offset={offset}", part)
                offset += len(part)
        return digest.hexdigest()

    async def _send(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            async with (
                asyncio.timeout(self.deadline_seconds),
                self.session.request(method, self.url + path, data=body, headers=headers) as response,
            ):
                text = await response.content.read(tool_transport.MAX_WHOLE_BODY)
                tool_transport.check_status(response.status, {}, tool_transport.explanation(text, self.key))
                return json.loads(text)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CallError(FailureKind.CONNECTION, wording.one_line(f"{type(error).__name__}: {error}")) from None
        except ValueError:
            raise CallError(FailureKind.MALFORMED, f"{path} is not JSON") from None
        except CallError as error:
            if error.message.startswith("HTTP 409"):  # parts of two senders were mixed: one of them sends again
                raise CallError(FailureKind.SERVER_ERROR, error.message) from None
            if error.kind in (FailureKind.REFUSED, FailureKind.AUTH):
                remedy = "start `gog serve policy --runtime receiver` beside vLLM, with the same GOG_API_KEY"
                what = f"{self.url} takes no adapters: {error.message}"
                raise UserError(what, where="tools.policyServer.receiverPort", remedy=remedy) from None
            raise
