"""The folder in which adapters arrive beside a server that reads folders only, such as vLLM.

An adapter is uploaded in parts, so that a connection that breaks costs one part, or fetched from the run's store. It
appears under its name whole, with the hashes that its sender gave, or not at all; a name never changes its content.
Names and files are the tenant's: a name is one path segment, and an adapter has two files. The folder is bounded: the
adapters that were used least recently are removed, because their servers have unloaded them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from gog import adapters, base_model, offers, store, tensors
from gog.errors import UserError, unwritable
from gog_tools.policy.requests import ADAPTER_NAME
from gog_tools.serving.errors import RequestError

FILES = (adapters.CONFIG, adapters.WEIGHTS)
"""Files of an adapter."""
HASHES = "sha256.json"
"""File with the SHA-256 of each file of an adapter, which is written last."""
MAX_BYTES = 8 << 30
"""Bytes of one adapter at most."""
KEPT = 8
"""Adapters that are kept: the version in use, the one before, and proofs of the modules."""


class Arrivals:
    """Adapters by name, below one folder."""

    def __init__(
        self, folder: Path, opened: Callable[[], store.Store] | None = None, base: base_model.Identity | None = None
    ) -> None:
        """Prepares the folder.

        Args:
            folder: where the server reads adapters
            opened: opens the store that checkpoints are fetched from; None for none
            base: the base model that is served; adapters of another one are refused

        Raises:
            UserError: the folder cannot be written.
        """
        self.folder, self.opened, self.base = folder.absolute(), opened, base
        self._lock = threading.Lock()
        self._parts = self.folder / ".parts"
        try:
            shutil.rmtree(self._parts, ignore_errors=True)
            self._parts.mkdir(parents=True)
        except OSError as error:
            raise unwritable(error, folder) from error

    def names(self) -> dict[str, dict[str, str]]:
        """SHA-256 of each file, by name of the adapter, in the order of arrival."""
        found = sorted(self.folder.glob(f"*/{HASHES}"), key=lambda path: path.stat().st_mtime_ns)
        return {path.parent.name: json.loads(path.read_bytes()) for path in found}

    def append(self, name: str, file: str, offset: int, part: bytes) -> int:
        """Appends a part of a file.

        Args:
            name: of the adapter
            file: one of FILES
            offset: bytes that the sender knows to have arrived
            part: the next bytes

        Returns:
            Bytes that have arrived.

        Raises:
            RequestError: for another name or file, and with status 409 for a gap or an overlap; the sender begins anew.
        """
        _check_name(name)
        if file not in FILES:
            raise RequestError(404, f"{file} is no file of an adapter: {', '.join(FILES)}")
        with self._lock:
            path = self._parts / name / file
            path.parent.mkdir(exist_ok=True)
            if offset == 0:
                path.unlink(missing_ok=True)
            size = path.stat().st_size if path.exists() else 0
            if offset != size:
                raise RequestError(409, f"{file}: {size} bytes have arrived, not {offset} (begin again at 0)")
            if size + len(part) > MAX_BYTES:
                raise RequestError(413, f"{file} has more than {MAX_BYTES:,} bytes")
            try:
                with path.open("ab") as stream:
                    stream.write(part)
            except OSError as error:
                raise unwritable(error, path) from error
            return size + len(part)

    def commit(self, name: str, hashes: Mapping[str, str]) -> Path:
        """Makes an uploaded adapter appear.

        Args:
            name: of the adapter
            hashes: SHA-256 of each of its files, in hexadecimal digits

        Returns:
            Its folder.

        Raises:
            RequestError: with status 409 for a file that is missing or has another hash, and for a name that other
                content has.
            UserError: it is not an adapter.
        """
        _check_name(name)
        if set(hashes) != set(FILES):
            raise RequestError(400, f"sha256: give the hash of each file: {', '.join(FILES)}")
        with self._lock:
            if name in (there := self.names()):
                if there[name] != dict(hashes):
                    raise RequestError(409, f"{name} stands for other weights (give each version a new name)")
                return self.folder / name
            source = self._parts / name
            found = {file: _sha256(source / file) for file in FILES if (source / file).is_file()}
            if found != dict(hashes):
                shutil.rmtree(source, ignore_errors=True)
                raise RequestError(
                    409, f"{name}: the files that arrived are not the ones that were sent (send them again)"
                )
            return self._appear(source, name, found)

    def fetch(self, ref: str) -> Path:
        """A checkpoint's policy as one adapter on the plain base, from the store; kept if it is there.

        Raises:
            RequestError: there is no store.
            UserError: the checkpoint is missing, corrupt, or of another base model.
            store.Unavailable: the store does not answer.
        """
        name = offers.name_of(ref)
        _check_name(name)
        with self._lock:
            if (self.folder / name / HASHES).exists():
                return self.folder / name
            if self.opened is None:
                raise RequestError(404, f"{ref}: this process has no store (start it with --store)")
            target = self._parts / name
            shutil.rmtree(target, ignore_errors=True)
            adapters.fetch_servable(self.opened(), ref, target, base=self.base)
            return self._appear(target, name, {file: _sha256(target / file) for file in FILES})

    def remove(self, name: str) -> None:
        """Removes an adapter; does nothing if it is not there."""
        _check_name(name)
        with self._lock:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _appear(self, source: Path, name: str, hashes: Mapping[str, str]) -> Path:
        try:
            tensors.header(source / adapters.WEIGHTS)
            if not isinstance(json.loads((source / adapters.CONFIG).read_bytes()), dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise UserError(f"{adapters.CONFIG} is not JSON: {error}", where=name) from None
        (source / HASHES).write_text(json.dumps(dict(hashes)), encoding="utf-8")
        source.replace(self.folder / name)
        for old in list(self.names())[:-KEPT]:
            shutil.rmtree(self.folder / old, ignore_errors=True)
        return self.folder / name


def _check_name(name: str) -> None:
    if not re.fullmatch(ADAPTER_NAME, name):
        raise RequestError(403, f"{name!r} is no name of an adapter")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
