"""The report of a run: one page to read and one file of numbers.

`write` reads a run folder (objects and store) and leaves `report/index.html` and `report/summary.json` in it. The page
is a single file without any outside reference, so it can be mailed, archived, or opened from a bucket. It is written
for runs at every stage, going, failed or complete; what cannot be read is shown as such, and nothing is filled in.

`render` is the pure part: gathered data in, two texts out, for whoever stores them elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gog_console.report import gather, page, summary
from gog_console.report.model import Data

FOLDER = "report"


@dataclass(frozen=True)
class Rendered:
    """The report as texts, by file name: index.html and summary.json."""

    html: str
    summary: str


def write(run_folder: Path, *, now: datetime | None = None) -> Path:
    """Writes the report of a run folder; returns the path of its page.

    now: the moment of writing, for the times of what still runs. Raises UserError for a folder that does not exist.
    """
    rendered = render(gather.gather(run_folder, now or datetime.now(UTC)))
    folder = run_folder / FOLDER
    folder.mkdir(exist_ok=True)
    _replace(folder / "summary.json", rendered.summary)
    return _replace(folder / "index.html", rendered.html)


def render(data: Data) -> Rendered:
    """Gathered data -> the two files. Never raises for what data lacks."""
    numbers = json.dumps(summary.summarise(data), indent=1, ensure_ascii=False, allow_nan=False)
    return Rendered(page.build(data), numbers + "\n")


def _replace(path: Path, text: str) -> Path:
    """Whole or not at all: somebody may be reading the last one."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path
