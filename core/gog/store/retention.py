"""Retention of checkpoints, and the sweep of blobs that no checkpoint needs.

Manifests are deleted first, then blobs that no manifest refers to. If the process is killed between two deletions, the
store holds complete checkpoints, and perhaps blobs that the next sweep deletes. A blob younger than the grace period is
kept, because the publication that stored it may not have committed yet; so the grace period must exceed the slowest
publication.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gog.spec import RetentionSpec
from gog.store.checkpoints import Store
from gog.store.counted import counted
from gog.store.model import Manifest


@dataclass(frozen=True)
class Plan:
    """What to delete."""

    drop: tuple[Manifest, ...]
    """Checkpoints, parents after their children."""
    before: datetime
    """Blobs that are older and not referenced may be deleted."""


@dataclass(frozen=True)
class Swept:
    """What a sweep deleted."""

    checkpoints: tuple[str, ...]
    """As `stage/step`."""
    blobs: int
    """Their number."""


def plan(manifests: Iterable[Manifest], spec: RetentionSpec, now: datetime) -> Plan:
    """Decides what to drop.

    Args:
        manifests: all checkpoints of the store.
        spec: how many of each stage are kept.
        now: the time, with its zone.

    Returns:
        All but, of each stage, the newest, the best and tagged ones (meta `tags`), and ancestors of those.
    """
    known = {manifest.ref: manifest for manifest in manifests}
    stages: dict[str, list[Manifest]] = defaultdict(list)
    for manifest in known.values():
        stages[manifest.stage].append(manifest)
    kept = {manifest.ref for each in stages.values() for manifest in _chosen(each, spec)}
    waiting = list(kept)
    while waiting:
        parents = [ref for ref in known[waiting.pop()].parents if ref in known and ref not in kept]
        kept.update(parents)
        waiting += parents
    drop = sorted((known[ref] for ref in known.keys() - kept), key=lambda manifest: (manifest.created, manifest.step))
    return Plan(tuple(reversed(drop)), now - timedelta(seconds=spec.grace_seconds))


def _chosen(manifests: Sequence[Manifest], spec: RetentionSpec) -> list[Manifest]:
    """The checkpoints of one stage that are kept as such, not as ancestors."""
    by_age = sorted(manifests, key=lambda manifest: manifest.step)
    scored = [manifest for manifest in by_age if _score(manifest, spec.metric) is not None]
    best = sorted(scored, key=lambda manifest: (_score(manifest, spec.metric), manifest.step))
    tagged = [manifest for manifest in by_age if manifest.meta.get("tags")]
    return [*by_age[-spec.keep_last :], *best[len(best) - min(spec.keep_best, len(best)) :], *tagged]


def _score(manifest: Manifest, metric: str) -> float | None:
    value = manifest.meta.get(metric)
    return float(value) if isinstance(value, int | float) and value == value else None


@counted("sweep")
def apply(store: Store, spec: RetentionSpec, now: datetime | None = None) -> Swept:
    """Deletes checkpoints and unreferenced blobs.

    Args:
        store: the store.
        spec: what is kept.
        now: the time, with its zone; None: this machine's.

    Raises:
        UserError: a manifest cannot be read. No blob is deleted then, because that manifest may need any of them.
    """
    now = now or datetime.now(UTC)
    decided = plan(_manifests(store), spec, now)
    for manifest in decided.drop:
        store.backend.delete(manifest.key)
    old = [entry for entry in store.backend.entries("blobs/") if entry.modified < decided.before]
    needed = {blob.hash for manifest in _manifests(store) for blob in manifest.files.values()}  # after the listing
    gone = [
        digest
        for digest in (entry.key.rpartition("/")[2] for entry in old)
        if digest not in needed and store.backend.remove_blob(digest, decided.before)
    ]
    store.backend.tidy(decided.before)
    return Swept(tuple(manifest.ref for manifest in decided.drop), len(gone))


def _manifests(store: Store) -> list[Manifest]:
    return [store.manifest(stage, step) for stage in store.stages() for step in store.steps(stage)]
