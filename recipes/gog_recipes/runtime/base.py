"""A stage's base model: fetched once on a machine, the same on every rank, the one that saved adapters were trained on.

An `hf://` base without a commit is pinned by the first checkpoint that records one: later stages and attempts use that
commit, even if its branch moved meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gog import base_model, base_source, hub, mounts, store
from gog.spec import ModelSpec, StoreSpec
from gog_recipes import world
from gog_recipes.runtime.ranks import Ranks


@dataclass(frozen=True)
class Base:
    """The base model of a stage, checked."""

    spec: ModelSpec
    """The stage's model, with its base as a folder of this machine (or `tiny`)."""
    identity: base_model.Identity
    """What checkpoints record."""

    def require(self, manifest: store.Manifest, log: Callable[[str], None]) -> None:
        """Checks that a checkpoint's adapter was trained on this base.

        A checkpoint without a record is accepted, with a line in the log.

        Raises:
            UserError: it was trained on another one.
        """
        if not base_model.compare(manifest.meta.get(base_model.RECORD), self.identity, ref=manifest.ref):
            log(f"checkpoint {manifest.ref} does not record its base model, which is not compared")


def locate(
    spec: ModelSpec, *, options: StoreSpec, common: Path, ranks: Ranks, earlier: Iterable[store.Manifest] = ()
) -> Base:
    """The base model as a checked folder of this machine. All ranks at once.

    Args:
        spec: of the stage
        options: of the run's store, which hold for an s3:// base too
        common: folder that the machine's ranks share
        ranks: of the stage
        earlier: checkpoints that may record the commit of an hf:// base, the decisive one first

    Raises:
        UserError: it cannot be fetched or used, or a rank has another one.
        ServiceDown, store.Unavailable: the Hub or the store is down.
    """
    if spec.base == "tiny":
        found = base_source.Located(world.TINY, spec.base)
    else:
        name = _pinned(spec.base, earlier, ranks)
        found = base_source.fetch(name, options=options, target=common / "base")
        spec = spec.model_copy(update={"base": str(found.folder), "family": spec.preset})
    base_model.check(found.folder)
    identity = base_model.Identity(found.name, base_model.fingerprint(found.folder))
    ranks.require_same({"base model": identity.fingerprint}, remedy="give every pod the same model")
    return Base(spec, identity)


def _pinned(given: str, earlier: Iterable[store.Manifest], ranks: Ranks) -> str:
    """An hf:// address at a commit that all ranks share; anything else as it is."""
    if hub.parse(given) is None or mounts.folder(given) is not None:
        return given
    if not ranks.is_main:
        return ranks.broadcast("")
    address = hub.parse(base_source.recorded(given, earlier))
    assert address is not None
    return ranks.broadcast(str(hub.resolve(address)))
