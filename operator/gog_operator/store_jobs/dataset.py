"""Datasets into a store, under the key `data`, each as one bundle: the embedded world, or a folder of the user's."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from gog import dataset, dataset_zip, store
from gog.errors import UserError
from gog.spec import WorldSpec

GENERATOR = "gog_recipes.world.generate"
SPLITS = ("train", "test")


def world(wanted: WorldSpec, own: store.Store) -> dict[str, Any]:
    """Makes the embedded world and publishes it; one that is there already stays.

    Raises UserError where the store holds another dataset: its readers take the newest."""
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


def push(folder: Path, own: store.Store) -> dict[str, Any]:
    """Publishes a dataset folder as the newest; the same again is found done. Raises UserError for one that no run
    could read."""
    present = [split for split in SPLITS if (folder / f"{split}.jsonl").is_file()]
    if not present:
        raise UserError("no train.jsonl and no test.jsonl", where=str(folder), remedy="name a dataset folder")
    dataset.check(folder, present)
    newest = own.latest(dataset_zip.KEY)
    with tempfile.TemporaryDirectory(prefix="gog-data-") as scratch:
        path = Path(scratch) / dataset_zip.FILE
        dataset_zip.pack(folder, path)
        blobs = own.stage_blobs({dataset_zip.FILE: path})
        if newest is None or not newest.holds(blobs):
            newest = own.commit(dataset_zip.KEY, newest.step + 1 if newest else 1, blobs, meta={"complete": True})
    return {"dataset": newest.ref}


def _publish(own: store.Store, step: int, folder: Path, scratch: Path, meta: dict[str, Any]) -> store.Manifest:
    path = scratch / dataset_zip.FILE
    dataset_zip.pack(folder, path)
    return own.publish(dataset_zip.KEY, step, {dataset_zip.FILE: path}, meta={"complete": True, **meta})
