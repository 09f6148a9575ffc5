"""Report of a run: a page for people and a summary for programs.

`write` reads a run folder (objects and store) and writes `report/index.html` and `report/summary.json` into it. The page
is a single file without external references, so it can be mailed, archived, or opened from a bucket. A report can be
written at any time, also for a running or failed run; data that cannot be read is listed as a problem, never estimated.

`render` is the pure part: gathered data in, two texts out.
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
    """The two files of a report."""

    html: str
    """Text of index.html."""
    summary: str
    """Text of summary.json."""


def write(run_folder: Path, *, now: datetime | None = None) -> Path:
    """Writes the report of a run folder.

    Args:
        run_folder: folder of the run.
        now: the current time, up to which running stages are measured.

    Returns:
        Path of the page.

    Raises:
        UserError: the folder does not exist.
    """
    rendered = render(gather.gather(run_folder, now or datetime.now(UTC)))
    folder = run_folder / FOLDER
    folder.mkdir(exist_ok=True)
    replace(folder / "summary.json", rendered.summary)
    return replace(folder / "index.html", rendered.html)


def render(data: Data) -> Rendered:
    """Renders gathered data. Missing data never raises."""
    numbers = json.dumps(summary.summarise(data), indent=1, ensure_ascii=False, allow_nan=False)
    return Rendered(page.build(data), numbers + "\n")


def replace(path: Path, text: str) -> Path:
    """Replaces a file atomically, because the previous one may be open in a reader."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path
