"""What a server is given by name at start (a dataset, a base model, a store), as a folder on this machine.

A pod has no disk of its own, so names may be s3:// addresses, which are read with the options of `--store` into the
server's scratch folder, removed when the server ends; or hf:// addresses, which are kept in huggingface_hub's cache.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gog import base_source
from gog.errors import UserError
from gog.spec import StoreSpec
from gog_tools.serving import http_json

TINY = "tiny"
_ANY = "s3://bucket"
"""Address in the options of a server without --store; the base has its own."""
TINY_PACKAGE = "gog_recipes.world"
"""The package that holds the shipped base model. Found by name, because servers and recipes do not import each other."""


def resources(args: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What every server can provide to its back end (gog_tools.serving.backends.RESOURCES)."""
    provided: dict[str, Callable[[], Any]] = {
        "scratch": lambda: args.scratch,
        "fetch_model": lambda: lambda name: base_model(name, args).folder,
        "store_options": lambda: store_spec(args.store) if args.store is not None else None,
    }
    if args.data is not None:
        provided["data"] = lambda: dataset(args.data, args)
    return provided


def dataset(uri: str, args: argparse.Namespace) -> Path:
    """The folder of a dataset: one on this machine, or fetched from a store or the Hub.

    Raises:
        UserError: there is none, or it cannot be fetched.
        ServiceDown, Unavailable: the Hub, the store is down.
    """
    if "://" not in uri:
        return Path(uri)
    from gog import dataset_source  # imports the client of the store, which takes time and a folder does not need

    options = store_spec(args.store) if args.store is not None else None
    return dataset_source.fetch(uri, options=options, target=args.scratch / "data").path


def base_model(name: str, args: argparse.Namespace) -> base_source.Located:
    """A base model: the shipped one, or as `base_source.fetch` finds it. Raises UserError, ServiceDown, Unavailable."""
    if name != TINY:
        options = store_spec(args.store) if args.store is not None else StoreSpec(uri=_ANY)
        return base_source.fetch(name, options=options, target=args.scratch / "base")
    found = importlib.util.find_spec(TINY_PACKAGE)
    if found is None or found.origin is None:
        raise UserError("the shipped base is not installed here", where="--base tiny", remedy="use the trainer image")
    return base_source.Located(Path(found.origin).parent / TINY, TINY)


def store_spec(text: str) -> StoreSpec:
    """The store that --store describes. Raises UserError."""
    try:
        return StoreSpec.model_validate_json(text)
    except ValidationError as error:
        raise http_json.invalid(error, where="--store", prefix="--store: ") from None
