"""Queries of the index: a page of the list, groups, comparisons. Read-only.

A filter is a name and a value; an unknown name or an invalid value is a user error and never reaches SQL. Every sort
order ends with the row number, so that pages neither overlap nor leave gaps.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gog.errors import UserError
from gog_console.report.model import spread
from gog_console.viewer import schema

PAGE = 200
"""Rows of a page at most."""
COLUMNS_SHOWN = 8
"""Trajectories shown side by side at most."""
OUTCOMES = ("correct", "wrong", "excluded", "unjudged", "unreadable")
DECISIONS = ("open", "accept", "reject", "fix")
TROUBLES = {"failure": "failures > 0", "clean": "failures = 0", "error": "errors > 0"}
SORTS = {
    "place": (f"{schema.PLACED}", "row"),
    "reward": ("coalesce(reward, -1e9)", "row"),
    "seconds": ("seconds", "row"),
    "calls": ("tool_calls", "row"),
    "newest": ("step", "row"),
}
FROM = "rows LEFT JOIN temp.reviews ON temp.reviews.trajectory = rows.id"
LIVE = "archive IN (SELECT id FROM archives WHERE live)"
"""Archives that the source still has; every query uses it, so that removed archives are not shown."""

Row = dict[str, Any]
Condition = tuple[str, tuple[Any, ...]]


def _equal(column: str) -> Callable[[str], Condition]:
    return lambda value: (f"{column} = ?", (value,))


def _number(value: str, name: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UserError(f"{value!r} is not a number", where=name) from None


def _of(table: Mapping[str, str], name: str) -> Callable[[str], Condition]:
    def condition(value: str) -> Condition:
        if value not in table:
            raise UserError(f"unknown value {value!r}", where=name, remedy=f"one of {', '.join(table)}")
        return table[value], ()

    return condition


def _decision(value: str) -> Condition:
    return ("decision IS NULL", ()) if value == "open" else ("decision = ?", (value,))


def _words(value: str) -> Condition:
    """Matches all words, each as a prefix; punctuation is ignored."""
    parts = re.findall(r"[^\W_]+", value)
    if not parts:
        return "1", ()
    return "row IN (SELECT rowid FROM words WHERE words MATCH ?)", (" AND ".join(f'"{part}"*' for part in parts),)


FILTERS: dict[str, Callable[[str], Condition]] = {
    "stage": _equal("stage"),
    "step": lambda value: ("rows.step = ?", (int(_number(value, "step")),)),
    "policy": _equal("policy"),
    "level": _equal("level"),
    "outcome": _equal("outcome"),
    "behaviour": _equal("behaviour"),
    "kind": _equal("question_kind"),
    "trouble": _of(TROUBLES, "trouble"),
    "least": lambda value: ("reward >= ?", (_number(value, "least"),)),
    "most": lambda value: ("reward <= ?", (_number(value, "most"),)),
    "review": _decision,
    "text": _words,
}


def where(filters: Mapping[str, str], *, but: str = "") -> Condition:
    """SQL condition of the filters, without the one named `but`. Raises UserError for an unknown filter."""
    unknown = sorted(set(filters) - set(FILTERS))
    if unknown:
        raise UserError(f"unknown filter: {unknown[0]}", remedy=f"one of {', '.join(FILTERS)}")
    found = [FILTERS[name](value) for name, value in filters.items() if value and name != but]
    return " AND ".join([LIVE, *(sql for sql, _ in found)]), tuple(value for _, values in found for value in values)


def order(sort: str, down: bool, *, columns: Sequence[str] | None = None) -> str:
    return ", ".join(f"{column}{' DESC' if down else ''}" for column in columns or sort_columns(sort))


def sort_columns(sort: str) -> list[str]:
    if sort not in SORTS:
        raise UserError(f"unknown sort key {sort!r}", where="sort", remedy=f"one of {', '.join(SORTS)}")
    listed, last = SORTS[sort]
    return [*(re.split(r", (?![^(]*\))", listed)), last]


def page(
    connection: sqlite3.Connection, filters: Mapping[str, str], sort: str, down: bool, offset: int, limit: int
) -> list[sqlite3.Row]:
    """Rows of the list from an offset, at most `PAGE`."""
    condition, values = where(filters)
    query = f"SELECT rows.*, decision FROM {FROM} WHERE {condition} ORDER BY {order(sort, down)} LIMIT ? OFFSET ?"
    return connection.execute(query, (*values, min(limit, PAGE), max(0, offset))).fetchall()


def counts(connection: sqlite3.Connection, filters: Mapping[str, str]) -> dict[str, int]:
    """Trajectories by outcome, ignoring the outcome filter."""
    condition, values = where(filters, but="outcome")
    query = f"SELECT outcome, count(*) AS n FROM {_counted(filters)} WHERE {condition} GROUP BY outcome"
    return {row["outcome"]: row["n"] for row in connection.execute(query, values)}


def _counted(filters: Mapping[str, str]) -> str:
    """Table to count in; decisions are joined only when they are filtered by."""
    return FROM if filters.get("review") else "rows"


def place(connection: sqlite3.Connection, filters: Mapping[str, str], sort: str, down: bool, id: str) -> int | None:
    """Index of a trajectory in the list; None when it is not in the list."""
    columns = sort_columns(sort)
    condition, values = where(filters)
    query = f"SELECT {', '.join(columns)} FROM {FROM} WHERE {condition} AND id = ?"
    mark = connection.execute(query, (*values, id)).fetchone()
    if mark is None:
        return None
    before = f"({', '.join(columns)}) {'>' if down else '<'} ({', '.join('?' * len(columns))})"
    query = f"SELECT count(*) FROM {_counted(filters)} WHERE {condition} AND {before}"
    return int(connection.execute(query, (*values, *mark)).fetchone()[0])


def one(connection: sqlite3.Connection, id: str) -> sqlite3.Row | None:
    found: sqlite3.Row | None = connection.execute(
        f"SELECT rows.*, decision FROM {FROM} WHERE id = ? AND {LIVE}", (id,)
    ).fetchone()
    return found


def group(connection: sqlite3.Connection, row: Mapping[str, Any]) -> list[sqlite3.Row]:
    """Trajectories of the same question, step and policy."""
    query = (
        f"SELECT rows.*, decision FROM {FROM} WHERE question_id = ? AND stage = ? AND step = ? AND policy = ? AND {LIVE} "
        "AND outcome != 'unreadable' ORDER BY sample, row LIMIT 64"
    )
    return connection.execute(query, (row["question_id"], row["stage"], row["step"], row["policy"])).fetchall()


def compared(connection: sqlite3.Connection, row: Mapping[str, Any]) -> list[sqlite3.Row]:
    """The same question under every policy of its evaluation, or else one trajectory per stage and step."""
    own = "AND stage = ?" if row["kind"] == "evaluate" else ""
    query = (
        f"SELECT rows.*, decision, min(row) FROM {FROM} WHERE question_id = ? {own} AND {LIVE} AND outcome != 'unreadable' "
        f"GROUP BY stage, step, policy ORDER BY {order('place', down=False)}"
    )
    values = (row["question_id"], row["stage"]) if own else (row["question_id"],)
    found = connection.execute(query, values).fetchall() if row["question_id"] else []
    found = [row if _same(row, each) else each for each in found]
    chosen = spread(found, COLUMNS_SHOWN)
    if not any(each["id"] == row["id"] for each in chosen):
        chosen = [*chosen[:-1], row]
    return chosen


def _same(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(row[name] == other[name] for name in ("stage", "step", "policy"))


def facets(connection: sqlite3.Connection) -> Row:
    """Values of the filters, from one pass over the rows."""
    names = ", ".join(schema.FACETS)
    query = f"SELECT {names}, count(*) AS n FROM rows WHERE {LIVE} GROUP BY {names}"
    groups = [dict(row) for row in connection.execute(query)]

    def distinct(*columns: str) -> list[tuple[Any, ...]]:
        return sorted({tuple(group[column] for column in columns) for group in groups})

    return {
        "stages": [
            {"stage": stage, "kind": kind, "arm": arm}
            for arm, _, stage, kind in distinct("arm", "stage_order", "stage", "kind")
        ],
        "steps": [{"stage": stage, "step": step} for stage, step in distinct("stage", "step") if step],
        "policies": [policy for _, policy in distinct("policy_order", "policy") if policy],
        "levels": [level for (level,) in distinct("level") if level],
        "kinds": [kind for (kind,) in distinct("question_kind") if kind],
    }
