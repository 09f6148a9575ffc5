"""Publishes datasets in a store under the key `data`, each as one zip: the embedded world, or a user's folder."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from gog import dataset, dataset_zip, store
from gog.errors import UserError
from gog.spec import WorldSpec

GENERATOR = "gog_recipes.world.generate"


def world(wanted: WorldSpec, own: store.Store) -> dict[str, Any]:
    """Generates the embedded world and publishes it, unless the store already holds an equal one.

    Raises:
        UserError: the store holds another dataset. Its readers take the newest one.
    """
    stamp = wanted.model_dump(mode="json")
    newest = own.latest(dataset_zip.KEY)
    if newest is None:
        with tempfile.TemporaryDirectory(prefix="gog-data-") as scratch:
            folder = Path(scratch) / "world"
            importlib.import_module(GENERATOR).write(folder, wanted)
            newest = _publish(own, 1, folder, Path(scratch), {"world": stamp})
    elif newest.meta.get("world") != stamp:
        raise UserError(
            f"holds another dataset ({newest.ref})", where=own.where, remedy="give the run a store of its own"
        )
    return {"dataset": newest.ref}


def push(path: Path, own: store.Store, format: str | None = None) -> dict[str, Any]:
    """Checks a dataset and publishes it as the newest one. Publishing the same dataset again changes nothing.

    Args:
        path: A dataset folder, or a file or folder in another format, which is converted.
        own: The store.
        format: Name of the format; None to detect it from the content.

    Raises:
        UserError: the dataset has no splits, a line or image that a run cannot use, or a file that cannot be packed.
    """
    splits = dataset.splits(path, format)
    if not splits:
        raise UserError("no train.jsonl and no test.jsonl", where=str(path), remedy="name a dataset folder")
    dataset.check(path, splits, format=format)
    newest = own.latest(dataset_zip.KEY)
    with tempfile.TemporaryDirectory(prefix="gog-data-") as scratch:
        folder = dataset.as_folder(path, format, Path(scratch) / "converted")
        packed = Path(scratch) / dataset_zip.FILE
        dataset_zip.pack(folder, packed, dataset.files(folder, splits))
        blobs = own.stage_blobs({dataset_zip.FILE: packed})
        if newest is None or not newest.holds(blobs):
            newest = own.commit(dataset_zip.KEY, newest.step + 1 if newest else 1, blobs, meta={"complete": True})
    return {"dataset": newest.ref}


def _publish(own: store.Store, step: int, folder: Path, scratch: Path, meta: dict[str, Any]) -> store.Manifest:
    packed = scratch / dataset_zip.FILE
    dataset_zip.pack(folder, packed)
    return own.publish(dataset_zip.KEY, step, {dataset_zip.FILE: packed}, meta={"complete": True, **meta})
