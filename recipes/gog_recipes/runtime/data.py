"""A stage's dataset: fetched once on a machine, in gog's own form, the same on every rank.

A dataset of the Hugging Face Hub without a commit is pinned by the first checkpoint that records one: later stages and
attempts read that commit, even if its branch moved meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gog import dataset, dataset_source, folders, hub, mounts, store
from gog.errors import UserError
from gog.spec import DataSpec, StoreSpec
from gog_recipes.runtime.ranks import SINGLE, Ranks
from gog_recipes.world import generate


@dataclass(frozen=True)
class Data:
    """The dataset of a stage."""

    folder: Path
    """Its folder, in gog's own form."""
    record: dict[str, str] | None = None
    """What checkpoints record of one of the Hub: the given address, and that with its commit."""


def locate(
    given: DataSpec, *, options: StoreSpec, common: Path, ranks: Ranks = SINGLE, earlier: Iterable[store.Manifest] = ()
) -> Data:
    """The dataset as a folder in gog's own form; made, fetched or converted below `common` if need be. All ranks at once.

    Args:
        given: where the dataset is.
        options: of the run's store, which hold for `given.uri` too.
        common: folder that the machine's ranks share.
        ranks: of the stage.
        earlier: checkpoints that may record the commit of an hf:// dataset, the decisive one first; read for such only.

    Raises:
        UserError: there is no such dataset, or it cannot be fetched or read.
        ServiceDown, store.Unavailable: the Hub or the store is down.
    """
    folder, record = common / "data", None
    if given.world is not None:
        with folders.locked(folder):
            generate.write(folder, given.world)
        return Data(folder)
    if given.uri is not None:
        pinned = _pinned(given.uri, earlier, ranks)
        found = dataset_source.fetch(given.uri, options=options, target=folder, pinned=pinned)
        source, record = found.path, found.document() if given.uri.startswith(hub.PREFIX) else None
    else:
        source = Path(str(given.path))
    if not source.exists():
        raise UserError(
            "no such file or folder", where=f"data.path: {source}", remedy="name a dataset, or use data.world"
        )
    return Data(dataset.as_folder(source, given.format, common / "converted"), record)


def _pinned(uri: str, earlier: Iterable[store.Manifest], ranks: Ranks) -> str:
    """An hf:// address at a commit that all ranks share; empty for anything else, and for what is mounted."""
    if hub.parse_dataset(uri) is None or mounts.folder(uri) is not None:
        return ""
    if not ranks.is_main:
        return ranks.broadcast("")
    address = hub.parse_dataset(dataset_source.recorded(uri, earlier) or uri)
    assert address is not None
    return ranks.broadcast(str(hub.resolve(address)))
