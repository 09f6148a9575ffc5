"""Aligned columns that fit a terminal.

On a narrow terminal the least important columns are left out and text is cut with an ellipsis; lines never wrap. Widths
are display cells, because a CJK character takes two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

GAP = 2
"""Cells between two columns."""
LEAST = 16
"""Cells below which a column of sentences is left out rather than cut."""


@dataclass(frozen=True)
class Column:
    """How a column is laid out."""

    title: str
    """Heading; may be empty."""
    rank: int = 0
    """Columns of the highest rank are left out first; those of rank 0 never."""
    right: bool = False
    """Whether cells are aligned right, as numbers are."""
    cut: bool = False
    """Whether cells may be cut, as sentences may."""


Cell = str | Text


def lines(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int | None) -> list[Text]:
    """A line of headings and one line per row. width: cells of the terminal; None for as wide as needed."""
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    shown = [index for index in range(len(columns)) if any(row[index].plain for row in cells)]
    needs = {index: max(len(columns[index].title), *(row[index].cell_len for row in cells)) for index in shown}
    if width is not None:
        shown, needs = _fit(columns, shown, needs, width)
    head = [Text(column.title, style="bold") for column in columns]
    return [_line([row[index] for index in shown], [columns[i] for i in shown], needs, shown) for row in (head, *cells)]


def _fit(
    columns: Sequence[Column], shown: list[int], needs: dict[int, int], width: int
) -> tuple[list[int], dict[int, int]]:
    """Indices of the columns that remain, and the width of each."""

    def least(index: int) -> int:
        return min(needs[index], LEAST) if columns[index].cut else needs[index]

    def excess(size: dict[int, int]) -> int:
        return sum(size[index] + GAP for index in shown) - GAP - width

    narrow = {index: least(index) for index in shown}
    while excess(narrow) > 0 and any(columns[index].rank for index in shown):
        shown = [each for each in shown if each != max(shown, key=lambda index: (columns[index].rank, index))]
    for index in sorted(shown, key=lambda each: not columns[each].cut):
        over = excess(needs)
        if over > 0:
            floor = narrow[index] if columns[index].cut else 1
            needs = {**needs, index: max(needs[index] - over, floor)}
    return shown, needs


def _line(cells: Sequence[Text], columns: Sequence[Column], needs: dict[int, int], shown: Sequence[int]) -> Text:
    made = []
    for cell, column, index in zip(cells, columns, shown):
        cell = cell.copy()
        cell.truncate(needs[index], overflow="ellipsis")
        gap = max(needs[index] - cell.cell_len, 0)
        made.append(Text(" " * gap) + cell if column.right else cell + Text(" " * gap))
    line = Text(" " * GAP).join(made)
    line.rstrip()
    return fitting(line, None)


def fitting(line: Text, width: int | None) -> Text:
    """The line without wrapping, cut at `width` cells."""
    line.no_wrap = True
    if width is not None:
        line.truncate(width, overflow="ellipsis")
    return line
