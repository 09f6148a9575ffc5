"""`gog recording export|import|inspect`: recorded answers of tools as one file that repeats a run elsewhere.

A recording is named as `tools.cache.path` names it: an SQLite file, or a prefix of a store.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from gog import store, wording
from gog.calls import recording_file, recordings
from gog.calls.recording_file import Summary
from gog.errors import UserError
from gog_console import cli, s3_options

MAX_NAME = 40
"""Characters of a tool's name that are printed. A file from elsewhere may hold any text in its place."""


def main(given: argparse.Namespace) -> int:
    try:
        {"export": export, "import": import_, "inspect": inspect}[given.what](given)
    except store.Unavailable as error:
        print(f"gog: {error}", file=sys.stderr)
        return cli.FAILED
    return cli.COMPLETE


def export(given: argparse.Namespace) -> None:
    """Writes a recording into one file."""
    out = file_of(given.out, "FILE")
    with contextlib.closing(opened(given.recording, given, must_exist=True)) as recording:
        show(recording_file.write(recording, out, secrets_of(os.environ.items())))
    print(f"written to {out} ({out.stat().st_size:,} bytes)")


def import_(given: argparse.Namespace) -> None:
    """Adds the answers of an exported file to a recording."""
    show(recording_file.read(file_of(given.file, "FILE"), lambda: opened(given.recording, given)))
    print(f"added to {given.recording}; use it with tools.cache: {{mode: replay-strict, path: {given.recording}}}")


def inspect(given: argparse.Namespace) -> None:
    """Prints what a recording or an exported file holds."""
    if "://" not in given.file and not recording_file.is_recording(Path(given.file)):
        show(recording_file.inspect(Path(given.file)))
        return
    with contextlib.closing(opened(given.file, given, must_exist=True)) as recording:
        show(recording_file.summary_of(recording))


def opened(name: str, given: argparse.Namespace, *, must_exist: bool = False) -> recordings.AnyRecording:
    """The recording of a name. Raises UserError, store.Unavailable."""
    options = s3_options.given_for(given, "s3://any")
    return recordings.open_recording(name, options, must_exist=must_exist, where="RECORDING")


def file_of(name: str, where: str) -> Path:
    """The path of an exported file. Raises UserError for an address."""
    if "://" in name:
        remedy = "name a file on this machine; a recording in a store is the argument RECORDING"
        raise UserError("is an address", where=f"{where}: {name}", remedy=remedy)
    return Path(name)


def secrets_of(environment: Iterable[tuple[str, str]]) -> list[str]:
    """Values of the environment's variables that hold API keys."""
    return [value for name, value in environment if name.endswith("_API_KEY")]


def show(summary: Summary) -> None:
    """Prints what a recording holds."""
    print(f"blake3   {summary.digest}")
    for tool, count in summary.answers.items():
        print(f"{wording.one_line(tool, MAX_NAME) or '-':12} {count:>9,} answers")
    print(f"in all   {sum(summary.answers.values()):,} answers, {summary.answer_bytes:,} bytes")
    if summary.first is not None and summary.last is not None:
        print(f"recorded {_time(summary.first)} to {_time(summary.last)}")


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "a time that does not exist"
