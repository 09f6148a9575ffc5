"""Where a dataset comes from: a folder or file, a store, a volume, or the Hugging Face Hub, as a path on this machine.

A branch of the Hub is pinned to the commit that an earlier checkpoint of the run records, as that of a base model is
(`gog.base_source`), so that every stage and attempt reads the same questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gog import dataset_zip, folders, hub, mounts, store
from gog.errors import UserError
from gog.spec import StoreSpec

RECORD = "dataset_source"
"""Key in a checkpoint's metadata of where its dataset came from."""


@dataclass(frozen=True)
class Located:
    """A dataset on this machine."""

    path: Path
    """Its folder, or the file that a file:// address names; not checked yet."""
    given: str
    """Its address in the manifest."""
    name: str
    """What it is recorded as: the given address, or one of the Hub with its commit."""

    def document(self) -> dict[str, str]:
        """What checkpoints record."""
        return {"given": self.given, "name": self.name}


def fetch(uri: str, *, options: StoreSpec | None, target: Path, pinned: str = "") -> Located:
    """The dataset at an address; fetched if need be, once on a machine.

    Args:
        uri: of a store that holds a dataset (s3:// or file://), file:// of the dataset itself, hf://datasets/, or a volume's
        options: of the run's store, which hold for `uri` too
        target: where a dataset from a store is unpacked, or one of the Hub is linked; a digest is added to its name
        pinned: the same address at a commit, for hf:// without one; empty to ask the Hub

    Raises:
        UserError: there is no such dataset, or it cannot be fetched, written or unpacked.
        ServiceDown, store.Unavailable: the Hub, the store is down.
    """
    if (mounted := mounts.folder(uri)) is not None:
        return Located(mounted, uri, mounts.recorded(uri, mounted))
    address = hub.parse_dataset(pinned or uri)
    if address is None:
        return Located(dataset_zip.fetch_dataset(uri, options, target), uri, uri)
    address = hub.resolve(address)
    digest = hashlib.blake2b(str(address).encode(), digest_size=8).hexdigest()
    link = target.with_name(f"{target.name}-{digest}")  # it exists only once every file was compared with its hash
    root = folders.once(link, lambda fresh: fresh.symlink_to(hub.fetch_dataset(address)[0], target_is_directory=True))
    return Located(require_folder(root, address), uri, str(address))


def require_folder(root: Path, address: hub.Address) -> Path:
    """The part of a fetched repository that an address names. Raises UserError where it is a file."""
    found = root / address.path
    if not found.is_dir():
        remedy = "name its folder, or convert it with gog import"
        raise UserError("is a file, not the folder of a dataset", where=str(address), remedy=remedy)
    return found


def recorded(uri: str, checkpoints: Iterable[store.Manifest]) -> str:
    """An address of the Hub at the commit that a checkpoint of the same address was made with; empty if none was.

    Args:
        uri: as a manifest names it
        checkpoints: that may record a commit, the decisive one first
    """
    for manifest in checkpoints:
        found = manifest.meta.get(RECORD)
        if isinstance(found, Mapping) and found.get("given") == uri and str(found.get("name")).startswith(hub.DATASETS):
            return str(found["name"])
    return ""
