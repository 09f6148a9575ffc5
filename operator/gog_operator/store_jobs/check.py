"""Checks a store after an attempt: verifies the newest checkpoints, promotes complete ones, retires older ones.

The order matters: a checkpoint is deleted only after its successor has been verified and, where configured, promoted. A
failure to retire is a warning, because the work itself is safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from gog import journal, store
from gog.errors import UserError
from gog.spec import RetentionSpec
from gog.store import retention
from gog_operator.store_jobs.config import Check


def check(config: Check, own: store.Store, target: store.Store | None, now: datetime) -> dict[str, Any]:
    """Verifies, promotes and retires checkpoints.

    Args:
        config: The keys to check and the settings.
        own: The run's store.
        target: The store to promote to; None for none.
        now: Reference time of retention.

    Returns:
        The newest checkpoint of each key that has one, the promoted checkpoints, and the number of removed ones.

    Raises:
        UserError: a checkpoint is damaged or cannot be promoted.
        store.Unavailable: a store does not respond.
    """
    newest = {key: found for key in config.keys if (found := own.latest(key)) is not None}
    if config.verify:
        for manifest in newest.values():
            own.check(manifest)
    promoted = _promote(own, newest, target) if target is not None else []
    result: dict[str, Any] = {
        "checkpoints": {key: _summary(manifest) for key, manifest in newest.items()},
        "promoted": promoted,
        "removed": 0,
    }
    return result | (_retire(own, config.retention, now) if config.retention is not None else {})


def _summary(manifest: store.Manifest) -> dict[str, Any]:
    return {"step": manifest.step, "complete": manifest.meta.get("complete")}


def _promote(own: store.Store, newest: Mapping[str, store.Manifest], target: store.Store) -> list[str]:
    complete = [manifest for manifest in newest.values() if manifest.meta.get("complete")]
    for manifest in complete:
        target.check(store.copy(own, manifest.ref, target))
    return [manifest.ref for manifest in complete]


def _retire(own: store.Store, wanted: RetentionSpec, now: datetime) -> dict[str, Any]:
    """Deletes older checkpoints, and what belongs to none: blobs and journals that are older than the grace period."""
    try:
        removed = len(retention.apply(own, wanted, now).checkpoints)
        journal.sweep(own, now - timedelta(seconds=wanted.grace_seconds))
        return {"removed": removed}
    except UserError as error:
        return {"warning": f"older checkpoints are kept: {error.sentence()}"}
