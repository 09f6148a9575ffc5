"""Erases what a deleted run wrote into its store: all of it, or nothing.

Problem: a deletion cannot be undone, and the address may hold the work of others: of a run that shares it, of an earlier run of
the name, of a user. Decision: nothing is deleted unless the run is the only registered writer (`gog.store.writers`) and every
checkpoint is its own. Then exactly the objects are deleted whose keys have the form that gog gives them, so another store
below the same address, a model or a file of a user is not touched. Checkpoints go first, so that no reader finds half of one,
and the run's entry goes last: a job that was killed is repeated, and continues.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from gog import dataset_zip, profiles, store
from gog.calls import spend_log
from gog.errors import UserError
from gog.journal import plays
from gog.metrics import serving
from gog.store import parts, writers
from gog_operator.store_jobs.config import Erase

PROGRESS = "/progress"
"""Page with the number of erased objects."""
FORMS = {
    "latest": r"[^/]+",
    "manifests": r"[^/]+/\d{9}\.json",
    plays.ROOT: r"[^/]+/[^/]+-\d{9}/[0-9a-f]+/\d{4,9}-[0-9a-f]{8}-\d{5}-\d{8}",
    spend_log.FOLDER.rstrip("/"): r"[^/]+/[0-9a-f]{32}\.json",
    profiles.FOLDER: r"[^/]+/step-\d+-rank-\d+-[a-z]+\.json\.gz",
    "report": r"(index\.html|summary\.json)",
    "blobs": r"[0-9a-f]{64}",
}
"""Form of the keys below each folder that a run writes, in the order in which they are deleted."""
ROUNDS = 5
"""Listings of a folder until it holds nothing more; objects that appear meanwhile are deleted, too."""
MOST_NAMED = 5
"""Names in a message."""


@dataclass
class Count:
    """How far an erasure is."""

    erased: int = 0
    """Objects that were deleted."""
    kept: list[str] = field(default_factory=list)
    """Keys and folders that are not the run's."""


def erase(config: Erase, own: store.Store, environment: Mapping[str, str]) -> dict[str, Any]:
    """Erases a run's artifacts, while a page reports the number of erased objects.

    Args:
        config: the run.
        own: its store.
        environment: of the process; GOG_METRICS_PORT is the port of the page.

    Returns:
        The outcome: `erased`, `shared` (nothing was deleted) or `unmarked` (the run wrote nothing, or with an older gog),
        with a message for people and the number of deleted objects.

    Raises:
        UserError: a checkpoint's manifest cannot be read, or objects appear all the time.
        store.Unavailable: the store does not answer.
    """
    registered, count = writers.all_of(own), Count()
    if config.uid not in registered:
        message = f"nothing was erased: {own.where} has no entry {writers.FOLDER}/{config.uid}.json of this run"
        return {"outcome": "unmarked", "message": message, "erased": 0}
    foreign = _others(registered, config.uid) + _foreign_checkpoints(own, config)
    if foreign:
        return {"outcome": "shared", "message": f"{own.where} {_listed(foreign)}", "erased": 0}
    with _page(count, environment):
        for folder, form in FORMS.items():
            again = _others(writers.all_of(own), config.uid)
            if again:  # since the last folder
                return {"outcome": "shared", "message": f"{own.where} {_listed(again)}", "erased": count.erased}
            _erase_folder(own, folder, re.compile(f"{re.escape(folder)}/{form}"), count)
        own.backend.tidy(datetime.now(UTC))
        own.backend.delete(registered[config.uid].key)
    count.kept += [f"{each}/" for each in own.backend.folders("") if each not in (*FORMS, writers.FOLDER, ".probe")]
    kept = f"; kept what gog did not write: {_named(count.kept)}" if count.kept else ""
    return {"outcome": "erased", "message": f"{count.erased:,} objects of {own.where}{kept}", "erased": count.erased}


def _others(registered: Mapping[str, writers.Writer], uid: str) -> list[str]:
    return [f"is also written by {writer}" for key, writer in sorted(registered.items()) if key != uid]


def _foreign_checkpoints(own: store.Store, config: Erase) -> list[str]:
    """Why checkpoints in the store are not the run's. Raises UserError for a manifest that cannot be read."""
    form = re.compile(f"manifests/{FORMS['manifests']}")
    keys = [entry.key for entry in own.backend.entries("manifests/") if form.fullmatch(entry.key)]
    read = parts.together(own.backend.read, keys)
    found = (_foreign(own, key, value.data, config) for key, value in zip(keys, read, strict=True) if value is not None)
    return [each for each in found if each]


def _foreign(own: store.Store, key: str, data: bytes, config: Erase) -> str:
    """Why a checkpoint is not the run's; empty if it is."""
    try:
        manifest = store.Manifest.model_validate_json(data)
    except ValidationError:
        remedy = f"delete {own.backend.where(key)} if it is this run's, or keep the artifacts"
        raise UserError("is not a checkpoint's manifest", where=own.backend.where(key), remedy=remedy) from None
    run = manifest.meta.get("settings", {}).get("run")
    is_world = manifest.stage == dataset_zip.KEY and "world" in manifest.meta
    if run != config.run and not is_world:
        maker = f"run {run!r}" if run else "a user"
        return f"holds {manifest.ref}, which {maker} published"
    if manifest.timestamp < config.since.timestamp():
        return f"holds {manifest.ref}, which is older than this run"
    return ""


def _erase_folder(own: store.Store, folder: str, form: re.Pattern[str], count: Count) -> None:
    """Deletes the objects below a folder whose keys have the form, until there are none. Raises UserError."""

    def delete(key: str) -> None:
        own.backend.delete(key)
        count.erased += 1

    for _ in range(ROUNDS):
        keys = [entry.key for entry in own.backend.entries(f"{folder}/")]
        ours = [key for key in keys if form.fullmatch(key)]
        if not ours:
            count.kept += [key for key in keys if key not in ours]
            return
        parts.together(delete, ours)
    raise UserError(
        "objects appear as fast as they are erased", where=own.backend.where(folder), remedy="end what writes there"
    )


@contextlib.contextmanager
def _page(count: Count, environment: Mapping[str, str]) -> Iterator[None]:
    """Serves the number of erased objects as a progress document."""

    def body() -> tuple[str, bytes]:
        return "application/json", json.dumps({"step": count.erased, "total": 0}).encode()

    port = environment.get(serving.PORT)
    page = serving.Server({PROGRESS: body}, int(port), "") if port else None
    try:
        yield
    finally:
        if page is not None:
            page.shutdown()


def _listed(sentences: list[str]) -> str:
    more = len(sentences) - MOST_NAMED
    return "; ".join(sentences[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _named(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
