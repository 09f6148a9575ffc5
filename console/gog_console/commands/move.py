"""`gog move check|data|report|fetch|publish|erase --config FILE`: the command of a store job; `gog move push FOLDER URI`: uploads a
dataset; `gog move model ADDRESS FOLDER`: fetches a base model.

The result goes to stdout, and in a pod to its termination message. An error that a retry cannot fix is one sentence and
exit code 2; a store that does not answer is one sentence and exit code 1. The operator shows either.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gog import store
from gog.errors import ServiceDown
from gog.spec import StoreSpec
from gog_console import cli, s3_options
from gog_operator.store_jobs import config, message, stores


def main(given: argparse.Namespace) -> int:
    try:
        result = MOVES[given.what](given)
    except (ServiceDown, store.Unavailable) as error:
        print(f"gog: {error}", file=sys.stderr)
        return cli.FAILED
    print(message.leave(result, os.environ))
    return cli.COMPLETE


def check(given: argparse.Namespace) -> dict[str, Any]:
    """Verifies, promotes and retires checkpoints."""
    from gog_operator.store_jobs import check as move

    request = config.read(Path(given.config), config.Check)
    own = stores.open_own(request.store, os.environ)
    target = stores.open_target(request.promote_to, os.environ) if request.promote_to is not None else None
    return move.check(request, own, target, datetime.now(UTC))


def data(given: argparse.Namespace) -> dict[str, Any]:
    """Generates the embedded world in the store."""
    from gog_operator.store_jobs import dataset as move

    request = config.read(Path(given.config), config.Data)
    return move.world(request.world, stores.open_own(request.store, os.environ))


def report(given: argparse.Namespace) -> dict[str, Any]:
    """Writes the report into the store."""
    from gog_console import store_report as move

    request = config.read(Path(given.config), config.Report)
    return move.write(request, stores.open_own(request.store, os.environ), datetime.now(UTC))


def fetch(given: argparse.Namespace) -> dict[str, Any]:
    """Fetches the sources of a run into a volume."""
    from gog_operator.store_jobs import model as move

    request = config.read(Path(given.config), config.Fetch)
    return move.fetch(request, os.environ)


def erase(given: argparse.Namespace) -> dict[str, Any]:
    """Erases what a deleted run wrote."""
    from gog_operator.store_jobs import erase as move

    request = config.read(Path(given.config), config.Erase)
    return move.erase(request, stores.open_to_erase(request.store, os.environ), os.environ)


def publish(given: argparse.Namespace) -> dict[str, Any]:
    """Publishes a run's policy as a version of its agent, if its evaluation passes the gate."""
    from gog import offers
    from gog import publication as move

    request = config.read(Path(given.config), config.Publish)
    own = stores.open_own(request.store, os.environ)
    target = stores.open_target(request.target, os.environ)
    names = [each.name for each in dataclasses.fields(offers.Asked)]
    asked = offers.Asked(**{name: getattr(request, name) for name in names})
    return move.publish(own, target, asked).document()


def model(given: argparse.Namespace) -> dict[str, Any]:
    """Fetches a base model into a folder."""
    from gog_operator.store_jobs import model as move

    spec = StoreSpec.model_validate_json(given.store) if given.store else s3_options.given_for(given, "s3://bucket")
    options = stores.trusting(spec, os.environ)
    found = move.model(given.address, Path(given.folder), options, check=not given.any)
    if given.link:
        move.link(found.folder, given.link)
    return found.document(Path(given.folder))


def push(given: argparse.Namespace) -> dict[str, Any]:
    """Uploads a dataset folder."""
    from gog_operator.store_jobs import dataset as move

    spec = s3_options.given_for(given, address(given.uri))
    return move.push(Path(given.folder), stores.open_own(spec, os.environ), given.format)


def address(uri: str) -> str:
    """The URI itself, or file:// for the path of a folder."""
    return uri if "://" in uri else Path(uri).absolute().as_uri()


MOVES = {
    "check": check,
    "data": data,
    "report": report,
    "push": push,
    "fetch": fetch,
    "model": model,
    "erase": erase,
    "publish": publish,
}
