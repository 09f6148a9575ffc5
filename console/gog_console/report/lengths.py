"""What failures excluded from GRPO, by episode length. Pure: rows of the metric log -> Markup.

Long episodes make more calls, of which any may fail, so what is left to learn from is shorter than what was played. The table
shows by how much, over the whole stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gog_console import formatting
from gog_console.report.markup import Markup, tag
from gog_console.report.model import Row, number


@dataclass(frozen=True)
class Length:
    """Trajectories of one length."""

    name: str
    """`0`, `1`, … `6+`."""
    played: int
    """Number of all."""
    excluded: int
    """Number of excluded ones."""


def by(rows: Sequence[Row], what: str) -> list[Length]:
    """Trajectories of all steps by length.

    Args:
        rows: of GRPO's metric log.
        what: `turns` or `calls`.
    """
    played: Counter[str] = Counter()
    excluded: Counter[str] = Counter()
    for row in rows:
        shares = row.get(f"excluded_by_{what}")
        for name, count in _counts(row.get(f"trajectories_by_{what}")).items():
            share = number(shares.get(name)) if isinstance(shares, Mapping) else None
            played[name] += count
            excluded[name] += round(count * (share or 0.0))
    return [Length(name, played[name], excluded[name]) for name in sorted(played)]


def table(rows: Sequence[Row]) -> Markup | None:
    """The share excluded by number of tool calls; None if nothing was."""
    lengths = by(rows, "calls")
    if not sum(each.excluded for each in lengths):
        return None
    head = tag("tr", [tag("th", name) for name in ("Tool calls", "Played", "Excluded", "Share")])
    body = [
        tag(
            "tr",
            tag("td", each.name),
            tag("td", formatting.count(each.played), class_="n"),
            tag("td", formatting.count(each.excluded), class_="n"),
            tag("td", formatting.percent(each.excluded / each.played), class_="n"),
        )
        for each in lengths
    ]
    return tag(
        "details",
        tag("summary", "Excluded by episode length"),
        tag("p", "Of all steps. What is learned from makes fewer calls than what was played.", class_="lead"),
        tag("table", tag("thead", head), tag("tbody", body), class_="counts"),
    )


def _counts(value: object) -> dict[str, int]:
    """Counts by name, as far as a row holds such."""
    found = {str(name): number(count) for name, count in value.items()} if isinstance(value, Mapping) else {}
    return {name: int(count) for name, count in found.items() if count is not None and count >= 1}
