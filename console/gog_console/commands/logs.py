"""`gog logs NAME[/STAGE] [-f]`: logs of a run's processes, attempt by attempt.

The log of a run starts with its events; the log of a stage contains the lines of its processes. With -f it follows
until no process drives the run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

from gog.errors import UserError
from gog_console import cli, run_files
from gog_operator.cluster import lock


def main(given: argparse.Namespace) -> int:
    name, _, part = given.name.partition("/")
    folder = Path(given.dir) / name
    run_files.find(folder)
    if part:
        check(folder, part)
    seen: dict[Path, int] = {}
    while True:
        driven = lock.holder(folder) is not None
        for line in news(folder, part, seen):
            print(line, flush=True)
        if not given.follow or not driven:
            return cli.COMPLETE
        time.sleep(0.3)


def check(folder: Path, part: str) -> None:
    """Raises UserError when the run has no log of this part."""
    parts = sorted({each.name for each in (folder / "logs").glob("*")})
    if part not in parts:
        raise UserError(f"no log of {part!r}", where=str(folder), remedy=f"there are: {', '.join(parts) or 'none yet'}")


def news(folder: Path, part: str, seen: dict[Path, int]) -> Iterator[str]:
    """Lines appended since the last call. seen: offset up to which each file was read; updated."""
    for path in files(folder, part):
        began = path not in seen
        fresh = list(_since(path, seen))
        if path.name == "events.jsonl":
            yield from map(event_line, fresh)
        elif fresh:
            if began:
                yield f"==> {title(folder, path)} <=="
            yield from fresh


def files(folder: Path, part: str) -> list[Path]:
    """Files to show, the newest last; events.jsonl comes first when the whole run is shown."""
    if not part:
        return [path for path in [folder / "events.jsonl"] if path.is_file()] + [
            path for each in sorted((folder / "logs").glob("*")) for path in _newest(each)
        ]
    return [path for attempt in _attempts(folder / "logs" / part) for path in _logs(attempt)]


def _attempts(logs: Path) -> list[Path]:
    return sorted((each for each in logs.glob("*") if each.name.isdigit()), key=lambda each: int(each.name))


def _newest(logs: Path) -> list[Path]:
    attempts = _attempts(logs)
    return _logs(attempts[-1]) if attempts else _logs(logs)


def _logs(folder: Path) -> list[Path]:
    return sorted([*folder.rglob("combined.log"), *folder.glob("server.log"), *folder.glob("data.log")])


def title(folder: Path, path: Path) -> str:
    """`sft, attempt 2`"""
    part, *rest = path.relative_to(folder / "logs").parts
    return f"{part}, attempt {rest[0]}" if rest and rest[0].isdigit() else part


def event_line(text: str) -> str:
    """A line of events.jsonl for reading; a damaged line unchanged."""
    try:
        event = json.loads(text)
        return f"{event['time']}  {'!' if event['type'] == 'Warning' else ' '} {event['message']}"
    except (ValueError, KeyError):
        return text


def _since(path: Path, seen: dict[Path, int]) -> Iterator[str]:
    """Complete lines after the offset. An incomplete last line is left for later, unless it is the only new content."""
    with path.open("rb") as stream:
        stream.seek(seen.get(path, 0))
        data = stream.read()
    end = data.rfind(b"\n") + 1 or len(data)
    seen[path] = seen.get(path, 0) + end
    yield from data[:end].decode("utf-8", errors="replace").splitlines()
