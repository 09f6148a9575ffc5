"""Copies checkpoints from store to store, and fetches model folders and other objects from a plain bucket."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from gog.errors import UserError, unwritable
from gog.spec import StoreSpec
from gog.store import parts
from gog.store.address import bucket_and_prefix
from gog.store.backend import Entry, Unavailable
from gog.store.checkpoints import Store, appearing, inside
from gog.store.faults import Patience
from gog.store.model import Manifest
from gog.store.s3 import S3Backend

MODEL_FILES = {".safetensors", ".json", ".txt", ".jinja"}
"""File types of a model folder. Pickles (.bin, .pt, .ckpt) run code when they are loaded, so they are not fetched."""


def copy(source: Store, ref: str, target: Store, *, parents: bool = False) -> Manifest:
    """Publishes a checkpoint in another store, where it appears whole.

    Inside one S3 service the server copies; otherwise the files pass through this machine.

    Args:
        source: the store that holds it.
        ref: `stage/step`, or `stage` for its newest checkpoint.
        target: the other store.
        parents: copy all its ancestors first.

    Returns:
        The checkpoint in the other store.

    Raises:
        UserError, Unavailable: as reading and publishing.
    """
    manifest = source.resolve(ref)
    for parent in manifest.parents if parents else ():
        copy(source, parent, target, parents=True)
    for name, blob in manifest.files.items():
        if not target.backend.copy_blob(source.backend, blob):
            target.stage_blobs({name: source.open(manifest, name)})
    return target.commit(manifest.stage, manifest.step, manifest.files, meta=manifest.meta, parents=manifest.parents)


def fetch_prefix(spec: StoreSpec, uri: str, folder: Path, patience: Patience | None = None) -> Path:
    """Fetches a base model in Hugging Face form; the folder appears whole or not at all.

    Sizes are verified, and checksums where the server has kept them.

    Args:
        spec: options for the server; its address is ignored.
        uri: s3:// prefix of the model.
        folder: where to; kept if it exists.
        patience: how long requests are retried.

    Returns:
        `folder`.

    Raises:
        UserError: there are no safetensors, a file is corrupt, or the folder cannot be written.
        Unavailable: the server does not answer.
    """
    if folder.is_dir():
        return folder
    backend, wanted = _model_files(spec, uri, patience)
    try:
        with appearing(folder) as target:
            for entry in wanted:
                _fetch(backend, entry, target)
    except Unavailable:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # unless another process was faster
            raise unwritable(error, folder) from error
    return folder


def mirror(spec: StoreSpec, folder: Path, wanted: Callable[[str], bool], patience: Patience | None = None) -> None:
    """Makes a folder equal to the objects below an address: fetches what is missing or has changed, removes the rest.

    A file gets the time of its object, by which the next call knows it. Sizes are verified, and checksums where the server
    has kept them.

    Args:
        spec: `s3://` address and options of the server.
        folder: made if it does not exist; used for nothing else.
        wanted: whether an object is fetched, by its path below the address.
        patience: how long requests are retried.

    Raises:
        UserError: an object is corrupt or leads outside the folder, or the folder cannot be written.
        Unavailable: the server does not answer.
    """
    backend = S3Backend(spec, *bucket_and_prefix(spec.uri), patience or Patience())
    kept: set[Path] = set()

    def update(entry: Entry) -> None:
        path, time = inside(folder, entry.key), int(entry.modified.timestamp() * 1e9)
        if path is None:
            raise UserError("the object's key leads outside the folder", where=backend.where(entry.key))
        kept.add(path)
        if path.is_file() and (path.stat().st_size, path.stat().st_mtime_ns) == (entry.size, time):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        backend.fetch_object(entry, path)
        os.utime(path, ns=(time, time))

    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts.together(update, (entry for entry in backend.entries("") if wanted(entry.key)))
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path not in kept:
                path.unlink()
    except Unavailable:
        raise
    except OSError as error:
        raise unwritable(error, folder) from error


def list_model(spec: StoreSpec, uri: str, patience: Patience | None = None) -> list[str]:
    """Names of the files that `fetch_prefix` would fetch. Raises as it does."""
    return sorted(entry.key for entry in _model_files(spec, uri, patience)[1])


def model_state(spec: StoreSpec, uri: str, patience: Patience | None = None) -> list[tuple[str, int, str]]:
    """Name, bytes and time of each file that `fetch_prefix` would fetch: another state is another model. Raises as it does."""
    entries = _model_files(spec, uri, patience)[1]
    return sorted((entry.key, entry.size, entry.modified.isoformat()) for entry in entries)


def _model_files(spec: StoreSpec, uri: str, patience: Patience | None) -> tuple[S3Backend, list[Entry]]:
    backend = S3Backend(spec.model_copy(update={"uri": uri}), *bucket_and_prefix(uri), patience or Patience())
    found = list(backend.entries(""))
    wanted = [entry for entry in found if Path(entry.key).suffix in MODEL_FILES]
    _check_that_a_model(uri, found, wanted)
    return backend, wanted


def _fetch(backend: S3Backend, entry: Entry, target: Path) -> None:
    path = inside(target, entry.key)
    if path is None:
        raise UserError("the object's key leads outside the folder", where=backend.where(entry.key))
    path.parent.mkdir(parents=True, exist_ok=True)
    backend.fetch_object(entry, path)


def _check_that_a_model(uri: str, found: list[Entry], wanted: list[Entry]) -> None:
    if any(entry.key.endswith(".safetensors") for entry in wanted):
        return
    held = ", ".join(sorted(entry.key for entry in found)[:5]) or "nothing"
    raise UserError(f"no safetensors (found: {held})", where=uri, remedy="convert pickles: they are never loaded")
