"""Embedding indexes in a store, under the key `index`: each build is a checkpoint of its own, and the newest counts.

A machine fetches an index once: it lies in the user's cache folder under the hash of its `index.json`, which names its
files by their content, and is verified when it is fetched and whenever it is opened. Builds for a store work in the cache
folder too, so that one that was interrupted continues.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import blake3

from gog import base_source, folders, store
from gog.errors import Unwritable, UserError
from gog.spec import StoreSpec
from gog_tools.search import index_build, index_file
from gog_tools.search.index_file import Manifest

KEY = "index"


def is_address(name: str) -> bool:
    """Whether an index or a folder of images is named by an address of a store."""
    return name.startswith(("s3://", "file://"))


def cache() -> Path:
    """The folder of fetched indexes, images and unfinished builds; all of it can be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gog" / "indexes"


def place(kind: str, uri: str) -> Path:
    """The folder of a kind of content for an address: `images`, or `build`."""
    return cache() / f"{kind}-{blake3.blake3(uri.encode()).hexdigest(length=16)}"


def spec(uri: str, options: StoreSpec | None) -> StoreSpec:
    """The store at an address. options: of another address of the same server; None for those of the environment."""
    return StoreSpec(uri=uri) if options is None else options.model_copy(update={"uri": uri})


def fetch(uri: str, options: StoreSpec | None, scratch: Path | None = None) -> Path:
    """The folder of the newest index of a store; fetched once on a machine.

    Args:
        uri: `s3://` or `file://`; a `file://` folder that is an index itself is returned as it is.
        options: of the server.
        scratch: where to fetch it if the cache folder cannot be written; None: that is an error.

    Raises:
        UserError: the store holds no index, or a damaged one, or the folder cannot be written.
        store.Unavailable: the store does not answer.
    """
    local = base_source.local(uri)
    if local is not None and (local / index_file.MANIFEST).is_file():
        return local
    opened = store.open_store(spec(uri, options))
    newest = opened.latest(KEY)
    if newest is None or index_file.MANIFEST not in newest.files:
        remedy = f"`gog index build DIR --encoder MODEL --out {uri}` makes one"
        raise UserError("the store holds no index", where=uri, remedy=remedy)
    name = newest.files[index_file.MANIFEST].hash
    try:
        return folders.once(cache() / name, lambda fresh: opened.fetch(newest, fresh))
    except Unwritable:  # a pod may have no home
        if scratch is None:
            raise
        return folders.once(scratch / name, lambda fresh: opened.fetch(newest, fresh))


def begin(uri: str, options: StoreSpec | None, out: Path) -> None:
    """Puts the newest index of a store into the folder of a build, which compares what it builds with it.

    Raises:
        UserError, store.Unavailable: as `fetch`; a store without an index is fine.
    """
    opened = store.open_store(spec(uri, options))
    newest = opened.latest(KEY)
    if newest is None or _is_there(newest, out):
        return
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as scratch:
        fetched = opened.fetch(newest, Path(scratch) / "index")
        out.mkdir(exist_ok=True)
        (out / index_file.MANIFEST).unlink(missing_ok=True)
        for path in sorted(
            fetched.iterdir(), key=lambda each: each.name == index_file.MANIFEST
        ):  # which commits the rest
            path.replace(out / path.name)


def _is_there(newest: store.Manifest, out: Path) -> bool:
    """Whether a folder holds an index of a store."""
    path, blob = out / index_file.MANIFEST, newest.files.get(index_file.MANIFEST)
    return blob is not None and path.is_file() and blake3.blake3(path.read_bytes()).hexdigest() == blob.hash


def publish(out: Path, manifest: Manifest, uri: str, options: StoreSpec | None) -> str:
    """Publishes an index in a store, where it appears whole; the same index is not published twice.

    Args:
        out: the index folder.
        manifest: of the index.
        uri: of the store.
        options: of the server.

    Returns:
        The checkpoint: `index/3`.

    Raises:
        UserError, store.Unavailable: the store cannot be written, or does not answer.
    """
    opened = store.open_store(spec(uri, options))
    paths = [out / index_file.MANIFEST, *(manifest.path(out, kind) for kind in manifest.files)]
    blobs = opened.stage_blobs({path.name: path for path in paths})
    newest = opened.latest(KEY)
    if newest is not None and newest.holds(blobs):
        return newest.ref
    meta = {"hash": manifest.hash, "images": manifest.images, "encoder": manifest.encoder.name}
    return opened.commit(KEY, newest.step + 1 if newest is not None else 1, blobs, meta=meta).ref


def images(uri: str, options: StoreSpec | None) -> Path:
    """The images below an address, mirrored in the cache folder with their metadata.

    Raises:
        UserError, store.Unavailable: as `store.mirror`.
    """
    folder = place("images", uri)
    store.mirror(spec(uri, options), folder, index_build.is_source)
    return folder
