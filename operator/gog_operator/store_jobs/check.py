"""After an attempt: what the store holds, whether it is whole, where else it goes, and what may leave.

Verified, promoted, retired, in this order, so that nothing goes out before its successor is known to be whole and,
where it was to be copied, copied. That something could not be retired is told and fails nothing: hours of work stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gog import store
from gog.errors import UserError
from gog.spec import RetentionSpec
from gog.store import retention
from gog_operator.store_jobs.config import Check


def check(config: Check, own: store.Store, target: store.Store | None, now: datetime) -> dict[str, Any]:
    """What the store holds of each key, by its newest checkpoint; a key without one is left out.

    Raises UserError for a checkpoint that is not whole or cannot be promoted, store.Unavailable."""
    newest = {key: found for key in config.keys if (found := own.latest(key)) is not None}
    if config.verify:
        for manifest in newest.values():
            own.check(manifest)
    promoted = _promote(own, newest, target) if target is not None else []
    told: dict[str, Any] = {
        "checkpoints": {key: _shown(manifest) for key, manifest in newest.items()},
        "promoted": promoted,
        "removed": 0,
    }
    return told | (_retire(own, config.retention, now) if config.retention is not None else {})


def _shown(manifest: store.Manifest) -> dict[str, Any]:
    return {"step": manifest.step, "complete": manifest.meta.get("complete")}


def _promote(own: store.Store, newest: Mapping[str, store.Manifest], target: store.Store) -> list[str]:
    complete = [manifest for manifest in newest.values() if manifest.meta.get("complete")]
    for manifest in complete:
        target.check(store.copy(own, manifest.ref, target))
    return [manifest.ref for manifest in complete]


def _retire(own: store.Store, wanted: RetentionSpec, now: datetime) -> dict[str, Any]:
    try:
        return {"removed": len(retention.apply(own, wanted, now).checkpoints)}
    except UserError as error:
        return {"warning": f"older checkpoints stay: {error.sentence()}"}
