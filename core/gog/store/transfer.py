"""Checkpoints from store to store, and model folders out of a plain bucket."""

from __future__ import annotations

import errno
from pathlib import Path

from gog.errors import UserError, unwritable
from gog.spec import StoreSpec
from gog.store.address import bucket_and_prefix
from gog.store.backend import Entry, Unavailable
from gog.store.checkpoints import Store, appearing, inside
from gog.store.faults import Patience
from gog.store.model import Manifest
from gog.store.s3 import S3Backend

TAKEN = {".safetensors", ".json", ".txt", ".jinja"}
"""What a model folder needs. Pickles (.bin, .pt, .ckpt) run code when loaded, so they are never even fetched."""


def copy(source: Store, ref: str, target: Store, *, parents: bool = False) -> Manifest:
    """Publishes a checkpoint in another store, where it appears whole; with all its ancestors before it, if asked.

    Inside one S3 service the server copies; else the files pass through this machine. Raises as reading and publishing.
    """
    manifest = source.resolve(ref)
    for parent in manifest.parents if parents else ():
        copy(source, parent, target, parents=True)
    for name, blob in manifest.files.items():
        if not target.backend.copy_blob(source.backend, blob):
            target.stage_blobs({name: source.open(manifest, name)})
    return target.commit(manifest.stage, manifest.step, manifest.files, meta=manifest.meta, parents=manifest.parents)


def fetch_prefix(spec: StoreSpec, uri: str, folder: Path, patience: Patience | None = None) -> Path:
    """A base model in Hugging Face form, from below an s3:// prefix; whole or not at all. spec: the options to use.

    Sizes are verified, and checksums where the server has kept them. Raises UserError when there are no safetensors.
    """
    if folder.is_dir():
        return folder
    backend = S3Backend(spec.model_copy(update={"uri": uri}), *bucket_and_prefix(uri), patience or Patience())
    found = list(backend.entries(""))
    wanted = [entry for entry in found if Path(entry.key).suffix in TAKEN]
    _check_that_a_model(uri, found, wanted)
    try:
        with appearing(folder) as target:
            for entry in wanted:
                _fetch(backend, entry, target)
    except Unavailable:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
            raise unwritable(error, folder) from error
    return folder


def _fetch(backend: S3Backend, entry: Entry, target: Path) -> None:
    path = inside(target, entry.key)
    if path is None:
        raise UserError("an object's key points outside its folder", where=backend.where(entry.key))
    path.parent.mkdir(parents=True, exist_ok=True)
    backend.fetch_object(entry, path)


def _check_that_a_model(uri: str, found: list[Entry], wanted: list[Entry]) -> None:
    if any(entry.key.endswith(".safetensors") for entry in wanted):
        return
    held = ", ".join(sorted(entry.key for entry in found)[:5]) or "nothing"
    raise UserError(f"no safetensors there (found: {held})", where=uri, remedy="pickles are never loaded; convert them")
