"""`gog import KIND SRC DST`: a dataset of another project as a folder in gog's own form.

SRC is a file or folder, or a dataset of the Hugging Face Hub, which is fetched into huggingface_hub's cache first.

Progress goes to stderr every two seconds, so that the summary on stdout can be kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from gog import hub, mounts, wording
from gog.dataset import formats, importing
from gog.errors import ServiceDown, UserError
from gog_console import cli

DETECT = "auto"
"""Kind that stands for the only format that recognises the content."""
EVERY = 2.0
"""Seconds between two lines of progress."""


def main(given: argparse.Namespace) -> int:
    """Imports a dataset. Returns the exit code."""
    target = Path(given.target)
    importing.require_new(target)  # before gigabytes are fetched
    try:
        source, origin, sha256 = _source(given.source)
    except ServiceDown as error:
        print(f"gog: {error} (the same command continues)", file=sys.stderr)
        return cli.FAILED
    request = importing.Request(
        kind=formats.recognise(source) if given.kind == DETECT else given.kind,
        source=source,
        target=target,
        origin=origin,
        sha256=sha256,
        images=Path(given.images) if given.images else None,
        splits=_splits(given.split),
        only=_pairs(given.only),
        leave_out=given.leave_out,
    )
    progress = importing.run(request, reporter(time.monotonic))
    print_summary(progress, request)
    return 0


def _source(given: str) -> tuple[Path, str, dict[str, str]]:
    """The file or folder to import; of one that is fetched also its address with the commit, and the hashes of its files.

    Raises:
        UserError: there is no such file, folder or dataset, or it cannot be fetched.
        ServiceDown: the Hub does not answer.
    """
    if (address := hub.parse_dataset(given)) is None:
        if not Path(given).exists():
            raise UserError("there is no such file or folder", where=given)
        return Path(given), "", {}
    address = hub.resolve(address)
    print(f"fetching {address}", file=sys.stderr)
    folder, sha256 = hub.fetch_dataset(address)
    return folder / address.path, str(address), sha256


def _splits(given: list[str]) -> dict[str, str]:
    """The splits to import, with their new names. Raises UserError for one that is named twice."""
    found: dict[str, str] = {}
    for old, _, new in (each.partition("=") for each in given):
        if old in found:
            raise UserError(f"{old!r} is named twice", where="--split", remedy="import it once, under one name")
        found[old] = new or old
    return found


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    wrong = next((f"{name}{equals}{value}" for name, equals, value in pairs if not (name and value)), None)
    if wrong is not None:
        raise UserError(f"{wrong!r} is not MARK=VALUE", where="--only", remedy="as in --only language=EN")
    return {name: value for name, _, value in pairs}


def reporter(clock: Callable[[], float]) -> Callable[[importing.Progress], None]:
    """Prints how far an import is, at most every EVERY seconds. clock: seconds."""
    started = printed = clock()
    before: int | None = None

    def report(progress: importing.Progress) -> None:
        nonlocal printed, before
        now = clock()
        if before is None:
            before = progress.rows  # those of an earlier attempt took it no time
        if now - printed >= EVERY:
            printed = now
            rate = (progress.rows - before) / (now - started)
            print(f"{progress.rows:,} rows read, {progress.faults:,} faulty, {rate:,.0f} a second", file=sys.stderr)

    return report


def print_summary(progress: importing.Progress, request: importing.Request) -> None:
    """Prints what was taken and left out, and what to do next."""
    for name, count in progress.taken.items():
        print(f"{request.target}/{name}.jsonl: {wording.plural(count, 'question')}")
    for reason, count in sorted(progress.left_out.items()):
        print(f"left out: {count:,}: {reason}")
    if progress.faults:
        beside = request.target.with_name(f"{request.target.name}.{importing.FAULTS}")
        print(f"left out: {progress.faults:,} faulty rows, listed in {beside}")
    if request.origin:
        print(f"source: {request.origin}, recorded in {request.target / mounts.RECORD}")
    if (note := _missing(progress.taken)) is not None:
        print(f"note: {note}")
    print(f"format: {request.kind}. Next: gog validate {request.target}")


def _missing(taken: Iterable[str]) -> str | None:
    """The note about splits that stages read and that were not made."""
    made = set(taken)
    missing = {split: reader for split, reader in formats.USUAL.items() if split not in made}
    if not missing:
        return None
    what = ", and ".join(f"no split {split}, which {reader} reads" for split, reader in missing.items())
    other = next((each for each in sorted(made) if each not in formats.USUAL), None)
    return what if other is None else f"{what}; to make one, import with --split {other}={next(iter(missing))}"
