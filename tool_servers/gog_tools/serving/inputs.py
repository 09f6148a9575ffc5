"""What a server is given by name at start, as a folder on this machine: a dataset, a base model, a store.

A pod has no disk of its own, so names may be s3:// addresses, read with the options of `--store` into the server's
scratch folder, which goes when the server ends.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from pydantic import ValidationError

from gog import store
from gog.errors import UserError
from gog.spec import StoreSpec

TINY = "tiny"
TINY_PACKAGE = "gog_recipes.world"
"""Where the shipped base lies. Named only: servers and recipes know nothing of each other."""


def dataset(uri: str, given: argparse.Namespace) -> Path:
    """The folder of a dataset: one on this machine, or fetched from a store. Raises UserError."""
    if "://" not in uri:
        return Path(uri)
    from gog import dataset_zip  # with the store's client, which a folder need not wait for

    options = store_spec(given.store) if given.store is not None else None
    return dataset_zip.fetch_dataset(uri, options, given.scratch / "data")


def base_model(name: str, given: argparse.Namespace) -> Path:
    """The folder of a base model. Raises UserError."""
    if name.startswith("s3://"):
        options = store_spec(given.store) if given.store is not None else StoreSpec(uri=name)
        return store.fetch_prefix(options, name, given.scratch / "base")
    if name != TINY:
        return Path(name)
    found = importlib.util.find_spec(TINY_PACKAGE)
    if found is None or found.origin is None:
        raise UserError("the shipped base is not installed here", where="--base tiny", remedy="use the trainer image")
    return Path(found.origin).parent / TINY


def store_spec(text: str) -> StoreSpec:
    """--store, read. Raises UserError."""
    try:
        return StoreSpec.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{field + ': ' if field else ''}{first['msg']}", where="--store") from None
