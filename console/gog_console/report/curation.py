"""Which questions of the curation became demonstrations, and by which rules the others were left out. Pure: Data -> Markup.

A run whose curation left nothing out has no such section.
"""

from __future__ import annotations

from collections.abc import Mapping

from gog_console import formatting
from gog_console.report.markup import Markup, tag
from gog_console.report.model import Data, number


def dropped(data: Data) -> dict[str, int]:
    """Questions that each rule left out, the most first."""
    stage = data.stage("curate")
    found = stage.meta.get("dropped") if stage is not None else None
    counts = {str(name): int(number(count) or 0) for name, count in found.items()} if isinstance(found, Mapping) else {}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def section(data: Data) -> Markup | None:
    """The table of kept and left out."""
    counts = dropped(data)
    stage = data.stage("curate")
    if not counts or stage is None:
        return None
    kept = int(number(stage.meta.get("trajectories")) or 0)
    total = kept + sum(counts.values())
    head = tag("tr", [tag("th", name) for name in ("Outcome", "Questions", "Share")])
    rows = [
        tag("tr", tag("td", name), tag("td", f"{count:,}"), tag("td", formatting.percent(count / total, 1)))
        for name, count in [("kept", kept), *((f"left out: {rule}", count) for rule, count in counts.items())]
    ]
    return tag(
        "section",
        tag("h2", "Curation"),
        tag("p", f"{kept:,} of {total:,} questions became demonstrations. Rules left out the others.", class_="lead"),
        tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="scroll"),
        id="curation",
    )
