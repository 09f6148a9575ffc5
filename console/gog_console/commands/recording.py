"""`gog recording export|import|inspect`: recorded answers of tools as one file that repeats a run elsewhere."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from gog.calls import recording_file
from gog.calls.recording import Recording
from gog.calls.recording_file import Summary
from gog_console import cli


def main(given: argparse.Namespace) -> int:
    {"export": export, "import": import_, "inspect": inspect}[given.what](given)
    return cli.COMPLETE


def export(given: argparse.Namespace) -> None:
    """Writes a recording into one file."""
    recording = Recording(Path(given.recording), must_exist=True)
    out = Path(given.out)
    summary = recording_file.write(recording, out, secrets_of(os.environ.items()))
    recording.close()
    show(summary)
    print(f"written to {out} ({out.stat().st_size:,} bytes)")


def import_(given: argparse.Namespace) -> None:
    """Adds the answers of an exported file to a recording."""
    show(recording_file.read(Path(given.file), Path(given.recording)))
    print(f"added to {given.recording}; use it with tools.cache: {{mode: replay-strict, path: {given.recording}}}")


def inspect(given: argparse.Namespace) -> None:
    """Prints what a recording or an exported file holds."""
    show(recording_file.inspect(Path(given.file)))


def secrets_of(environment: Iterable[tuple[str, str]]) -> list[str]:
    """Values of the environment's variables that hold API keys."""
    return [value for name, value in environment if name.endswith("_API_KEY")]


def show(summary: Summary) -> None:
    """Prints what a recording holds."""
    print(f"blake3   {summary.digest}")
    for tool, count in summary.answers.items():
        print(f"{tool or '-':12} {count:>9,} answers")
    print(f"in all   {sum(summary.answers.values()):,} answers, {summary.answer_bytes:,} bytes")
    if summary.first is not None and summary.last is not None:
        print(f"recorded {_time(summary.first)} to {_time(summary.last)}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
