"""Where a base model comes from: a folder, `s3://`, `file://`, `hf://`, or a volume, as a folder on this machine.

Stages and the policy server name their base alike. What is fetched goes into a folder that the machine's processes share;
only one of them fetches it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gog import base_model, folders, hub, mounts, store
from gog.spec import StoreSpec

FILE, S3 = "file://", "s3://"


@dataclass(frozen=True)
class Located:
    """A base model on this machine."""

    folder: Path
    """Its folder in Hugging Face form, not checked yet."""
    name: str
    """What it is recorded as: the given name, or `hf://org/name@commit`."""


def local(base: str) -> Path | None:
    """The folder that a base is named by; None if it is fetched from elsewhere."""
    if base.startswith(FILE):
        address = urlsplit(base)
        return Path(unquote(address.netloc + address.path))
    return None if base.startswith((S3, hub.PREFIX, *mounts.PREFIXES)) else Path(base)


def fetch(base: str, *, options: StoreSpec, target: Path) -> Located:
    """The folder of a base model; fetched if need be, once on a machine.

    Args:
        base: a folder, `file://`, `s3://` or `hf://`, of which one without a commit is resolved; or a volume's address
        options: of the store; its address is ignored
        target: where an `s3://` base goes, to whose name a digest of the address is added; locks lie beside it

    Raises:
        UserError: it does not exist, or cannot be fetched or written.
        ServiceDown, store.Unavailable: the Hub, the store is down.
    """
    if (folder := local(base)) is not None:
        return Located(folder, base)
    if (mounted := mounts.folder(base)) is not None:
        return Located(mounted, mounts.recorded(base, mounted))
    if base.startswith(S3):
        digest = hashlib.blake2b(base.encode(), digest_size=8).hexdigest()
        fetched = folders.once(
            target.with_name(f"{target.name}-{digest}"), lambda fresh: store.fetch_prefix(options, base, fresh)
        )
        return Located(fetched, base)
    address = hub.parse(base)
    assert address is not None
    address = hub.resolve(address)
    with folders.locked(target):
        return Located(hub.fetch(address), str(address))


def recorded(base: str, checkpoints: Iterable[store.Manifest]) -> str:
    """An `hf://` address at the commit that a checkpoint of the same address was made with; else the base as given.

    A branch may move between two stages of a run, whose adapters must be of one base.

    Args:
        base: as a manifest names it
        checkpoints: that may record a commit, the decisive one first
    """
    address = hub.parse(base)
    if address is None or address.pinned:
        return base
    for manifest in checkpoints:
        name = str(manifest.meta.get(base_model.RECORD, {}).get("name", ""))
        given = manifest.meta.get("settings", {}).get("model", {}).get("base")
        if given == base and name.startswith(f"{hub.PREFIX}{address.repo}@"):
            return name
    return base
