"""`gog logs NAME[/STAGE] [-f]`: what the processes of a run wrote, attempt after attempt.

A whole run's log begins with its events, because that is the story; a stage's is its processes' own lines. With -f it
goes on until the run is driven no more.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

from gog.errors import UserError
from gog_console import cli, run_folder
from gog_operator.cluster import lock


def main(given: argparse.Namespace) -> int:
    name, _, part = given.name.partition("/")
    folder = Path(given.dir) / name
    run_folder.find(folder)
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
    """Raises UserError for a part that the run has no log of."""
    parts = sorted({each.name for each in (folder / "logs").glob("*")})
    if part not in parts:
        raise UserError(f"no log of {part!r}", where=str(folder), remedy=f"there are: {', '.join(parts) or 'none yet'}")


def news(folder: Path, part: str, seen: dict[Path, int]) -> Iterator[str]:
    """Lines that came since the last look; `seen` remembers how far each file was read."""
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
    """events.jsonl for the whole run; the newest last, so that the end of the output is the end of the story."""
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
    try:
        event = json.loads(text)
        return f"{event['time']}  {'!' if event['type'] == 'Warning' else ' '} {event['message']}"
    except (ValueError, KeyError):
        return text


def _since(path: Path, seen: dict[Path, int]) -> Iterator[str]:
    """Whole lines after what was read before; half a line waits for its end, unless nobody will write it."""
    with path.open("rb") as stream:
        stream.seek(seen.get(path, 0))
        data = stream.read()
    end = data.rfind(b"\n") + 1 or len(data)
    seen[path] = seen.get(path, 0) + end
    yield from data[:end].decode("utf-8", errors="replace").splitlines()
