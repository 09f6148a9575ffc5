"""Fetches a base model or a dataset into a folder, once: for the volume that all pods of a run, or of a cluster, read.

A folder appears whole: what arrives lies beside it until every file has the hash that its server states, and a base model
passes the check that stages make. A job that was killed continues with the files that are missing. Two jobs that fill one
volume wait for each other by a lock on a file of it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gog import base_model, dataset_source, dataset_zip, folders, hub, mounts, store
from gog.errors import UserError, unwritable
from gog.metrics import serving
from gog.spec import StoreSpec
from gog_operator.store_jobs import stores
from gog_operator.store_jobs.config import Fetch

PROGRESS = "/progress"
"""Page with the bytes that have arrived."""


@dataclass(frozen=True)
class Fetched:
    """A source in a folder of its own."""

    folder: Path
    """The folder; of a dataset of the Hub the one that its address names."""
    resolved: str
    """Its address, with a commit or a checkpoint where it has one."""
    size: int
    """Bytes of its files."""

    def document(self, root: Path) -> dict[str, Any]:
        """For the result of a job. root: folder of all sources."""
        return {"folder": str(self.folder.relative_to(root)), "resolved": self.resolved, "bytes": self.size}


def fetch(config: Fetch, environment: MutableMapping[str, str]) -> dict[str, Any]:
    """The sources of a run below the root of a volume, while a page reports how far they are.

    Args:
        config: what is fetched
        environment: of the process; GOG_METRICS_PORT is the port of the page

    Returns:
        Folder, resolved address and bytes of each source by what it is: base, judge, data.

    Raises:
        UserError, ServiceDown, store.Unavailable: as `model`.
    """
    root, options = Path(config.root), stores.trusting(config.store, environment)
    port = environment.get(serving.PORT)
    page = serving.Server({PROGRESS: lambda: _progress(root)}, int(port), "") if port else None
    try:
        made = {}
        if config.base is not None:
            made["base"] = model(config.base, root, options).document(root)
        if config.judge is not None:
            made["judge"] = model(config.judge, root, options, check=False).document(root)
        if config.data is not None:
            made["data"] = data(config.data, root, options).document(root)
        return made
    finally:
        if page is not None:
            page.shutdown()


def _progress(root: Path) -> tuple[str, bytes]:
    """Bytes that have arrived of sources that are not whole yet."""
    size = sum(folder_size(each) for each in root.glob(".*.part"))
    return "application/json", json.dumps({"step": size, "total": 0}).encode()  # a progress document


def link(folder: Path, name: str) -> None:
    """Makes a link beside a folder, for a reader that must know its path before."""
    place = folder.with_name(name)
    place.unlink(missing_ok=True)
    place.symlink_to(folder.name)


def model(address: str, root: Path, options: StoreSpec, *, check: bool = True) -> Fetched:
    """A base model below a folder that several runs share.

    Args:
        address: `hf://` or `s3://`
        root: the folder
        options: of the run's store, for `s3://`
        check: whether it must be a base model that stages can train

    Raises:
        UserError: the model does not exist, is gated, corrupt or unsupported; the folder cannot be written.
        ServiceDown, store.Unavailable: the Hub, the store is down.
    """
    parsed = hub.parse(address)
    if parsed is not None:
        pinned = hub.resolve(parsed)
        return _once(root, "model", str(pinned), lambda place: hub.download(pinned, place), check=check)
    if not address.startswith("s3://"):
        raise UserError("is neither hf:// nor s3://", where=address, remedy="name a model that is fetched")
    state = hashlib.sha256(json.dumps(store.model_state(options, address)).encode()).hexdigest()[:16]
    return _once(root, "model", f"{address}@{state}", lambda place: _from_store(options, address, place), check=check)


def data(uri: str, root: Path, options: StoreSpec) -> Fetched:
    """A dataset of the Hub, or the one that a store holds, unpacked, below a folder that several runs share. Raises as
    `model`."""
    if (address := hub.parse_dataset(uri)) is not None:
        pinned = hub.resolve(address)

        def download(place: Path) -> dict[str, str]:
            hashes = hub.download(pinned, place)
            dataset_source.require_folder(place, pinned)
            return hashes

        return _once(root, "data", str(pinned), download, check=False, part=pinned.path)
    opened = store.open_store(options.model_copy(update={"uri": uri}))
    newest = opened.latest(dataset_zip.KEY)
    if newest is None:
        raise UserError("the store holds no dataset", where=uri, remedy="`gog move push FOLDER URI` publishes one")

    def make(place: Path) -> dict[str, str]:
        shutil.rmtree(place, ignore_errors=True)
        dataset_zip.unpack(opened.open(newest, dataset_zip.FILE), place)
        return {}

    return _once(root, "data", f"{uri}@{newest.ref}", make, check=False)


def _from_store(options: StoreSpec, uri: str, place: Path) -> dict[str, str]:
    store.mirror(options.model_copy(update={"uri": uri}), place, lambda key: Path(key).suffix in store.MODEL_FILES)
    return {str(path.relative_to(place)): _sha256(path) for path in sorted(place.rglob("*")) if path.is_file()}


def _once(
    root: Path, kind: str, resolved: str, make: Callable[[Path], dict[str, str]], *, check: bool, part: str = ""
) -> Fetched:
    """The folder of a source; made if it is not there.

    Args:
        root: folder of all sources
        kind: of the source, with which the name begins
        resolved: its address, with a commit or a checkpoint where it has one
        make: fills or completes a folder, and returns hashes
        check: whether it must be a base model that stages can train
        part: folder in the made one that its readers mount
    """
    target = root / f"{kind}-{hashlib.sha256(resolved.encode()).hexdigest()[:16]}"
    partial = root / f".{target.name}.part"
    with folders.locked(target):
        if not (target / part / mounts.RECORD).is_file():
            hashes = make(partial)
            shutil.rmtree(partial / ".cache", ignore_errors=True)  # huggingface_hub's notes on what it fetched
            if check:
                _check(partial, resolved)
            try:
                mounts.record(partial / part, resolved, hashes)
                partial.rename(target)
            except OSError as error:
                raise unwritable(error, target) from error
    return Fetched(target / part, resolved, folder_size(target / part))


def _check(partial: Path, resolved: str) -> None:
    """Raises UserError for a folder that is no base model of ours, and removes it: another attempt would find it again."""
    try:
        base_model.check(partial, where=resolved)
    except UserError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def folder_size(folder: Path) -> int:
    """Bytes of the files below a folder, while others may come and go."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
