"""`gog view RUN|PATH|URI`: serves the trajectory viewer on this machine until interrupted.

Nothing is written to the run or the store; review decisions go into the file that the user names.
"""

from __future__ import annotations

import argparse
import threading
import webbrowser
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from gog.errors import UserError
from gog.spec import StoreSpec
from gog_console import cli
from gog_console.viewer import index, sources
from gog_console.viewer.api import Api
from gog_console.viewer.reviews import Reviews
from gog_console.viewer.server import Server
from gog_console.viewer.tokens import Vocabulary

NEAR, FAR = 5.0, 30.0
"""Seconds between two checks for new checkpoints, on this machine and in a bucket."""


def main(given: argparse.Namespace) -> int:
    folder = Path(given.images) if given.images else None
    if folder and not folder.is_dir():
        raise UserError("no such folder", where=f"--images {folder}", remedy="name the folder of the images")
    place = sources.resolve(given.target, Path(given.dir), options(given), folder)
    indexer = index.Indexer(place, index.location(place))
    server = serve(given, place, indexer)
    stop = threading.Event()
    follower = threading.Thread(target=indexer.follow, args=(stop, NEAR if place.near else FAR), daemon=True)
    follower.start()
    server.start()
    print(f"{place.name}  {server.url}\nCtrl-C ends it", flush=True)
    if given.open:
        webbrowser.open(server.url)
    try:
        show_progress(indexer, follower)
        follower.join()
    finally:
        stop.set()
        server.shutdown()
    return cli.COMPLETE


def serve(given: argparse.Namespace, place: sources.Source, indexer: index.Indexer) -> Server:
    """The server, not started yet. Raises UserError when a file or the port cannot be used."""
    reviews = Reviews(Path(given.reviews), lambda: datetime.now(UTC)) if given.reviews else None
    vocabulary = Vocabulary.read(Path(given.tokenizer)) if given.tokenizer else None
    try:
        return Server(Api(place, indexer, reviews, vocabulary), given.port)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen: {error}", where=f"port {given.port}", remedy="leave --port out") from None


def options(given: argparse.Namespace) -> StoreSpec:
    """Options of an S3 store; the URI is a placeholder that is not used."""
    given_options = {"endpoint_url": given.endpoint_url, "region": given.region, "path_style": given.path_style or None}
    return sources.validated(
        {"uri": "s3://unnamed", **{name: value for name, value in given_options.items() if value}}, given.target
    )


def show_progress(indexer: index.Indexer, follower: threading.Thread) -> None:
    """Shows a progress bar during the first pass, then what could not be read."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("indexing"), BarColumn(), TextColumn("{task.percentage:>3.0f} %  {task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        while indexer.progress.busy and follower.is_alive():
            now = indexer.progress
            bar.update(
                task, completed=now.share, description=f"archive {min(now.done + 1, now.archives)} of {now.archives}"
            )
            follower.join(0.2)
    for where, what in indexer.progress.problems:
        console.print(f"{where}: {what}", markup=False, soft_wrap=True)
