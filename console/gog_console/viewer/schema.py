"""Tables of the index, and the row of a line.

One row per line contains what the list shows, filters and sorts by. The trajectory itself remains in its archive and is
found by offset and length. Words are in a contentless full-text table.
"""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any

from gog.spec import STAGES
from gog.trajectory import Turn
from gog_console.report import viewer_payload
from gog_console.report.model import Sample, arm_of, kind_of, policy_order
from gog_console.viewer.lines import Line
from gog_console.viewer.sources import Found

VERSION = 2
"""Version of the tables; an index of another version is rebuilt."""
MOST_WORDS = 20_000
"""Searchable characters per trajectory."""

COLUMNS = {
    "id": "TEXT NOT NULL", "archive": "INTEGER NOT NULL", "offset": "INTEGER NOT NULL", "length": "INTEGER NOT NULL",
    "stage": "TEXT NOT NULL", "kind": "TEXT NOT NULL", "arm": "TEXT NOT NULL", "stage_order": "INTEGER NOT NULL",
    "step": "INTEGER NOT NULL", "policy": "TEXT NOT NULL", "policy_order": "INTEGER NOT NULL",
    "question_id": "TEXT NOT NULL", "question": "TEXT NOT NULL", "question_kind": "TEXT NOT NULL",
    "sample": "INTEGER NOT NULL", "level": "TEXT NOT NULL", "outcome": "TEXT NOT NULL", "behaviour": "TEXT NOT NULL",
    "failures": "INTEGER NOT NULL", "errors": "INTEGER NOT NULL", "tool_calls": "INTEGER NOT NULL",
    "reward": "REAL", "advantage": "REAL", "seconds": "REAL NOT NULL", "turns": "INTEGER NOT NULL",
    "way": "TEXT NOT NULL", "image": "TEXT NOT NULL", "answer": "TEXT", "problem": "TEXT NOT NULL",
}  # fmt: skip
LAST = "~"
"""Sort key in place of the question id of an unreadable line, which is listed at the end of its stage."""
PLACED = "arm, stage_order, step, question_id, policy_order, sample"
"""Default order: chronological, with an evaluated question grouped over its policies."""
FACETS = (
    "stage", "kind", "arm", "stage_order", "step", "policy", "policy_order", "level", "question_kind", "outcome",
)  # fmt: skip
"""Columns of the filters; a covering index of them answers `facets` without reading the rows."""
SQL = (
    "CREATE TABLE archives (id INTEGER PRIMARY KEY, stage TEXT NOT NULL, step INTEGER NOT NULL, identity TEXT NOT NULL, "
    "offset INTEGER NOT NULL DEFAULT 0, size INTEGER, done INTEGER NOT NULL DEFAULT 0, live INTEGER NOT NULL DEFAULT 1, "
    "UNIQUE (stage, step, identity))",
    "CREATE TABLE rows (row INTEGER PRIMARY KEY AUTOINCREMENT, "
    f"{', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})",
    "CREATE UNIQUE INDEX by_id ON rows (id)",
    f"CREATE INDEX by_place ON rows ({PLACED}, row)",
    "CREATE INDEX by_reward ON rows (coalesce(reward, -1e9), row)",
    "CREATE INDEX by_seconds ON rows (seconds, row)",
    "CREATE INDEX by_calls ON rows (tool_calls, row)",
    "CREATE INDEX by_question ON rows (question_id, stage, step)",
    f"CREATE INDEX by_facet ON rows ({', '.join(FACETS)}, archive)",
    "CREATE VIRTUAL TABLE words USING fts5(text, content='', detail=none, prefix='3')",
    f"PRAGMA user_version = {VERSION}",
)

Row = dict[str, Any]


def row(found: Found, archive: int, line: Line) -> tuple[Row, str]:
    """What the index keeps of a line, and the words by which it is found."""
    kind = kind_of(found.key)
    arm = arm_of(found.key, kind) if kind else ""
    base: Row = {
        "archive": archive, "offset": line.offset, "length": line.length, "stage": found.key, "kind": kind, "arm": arm,
        "stage_order": STAGES.index(kind) if kind in STAGES else len(STAGES), "problem": line.problem,
    }  # fmt: skip
    if line.trajectory is None:
        return {**base, **_unreadable(found, line)}, line.problem
    sample = Sample(line.trajectory, found.key, kind, found.step)
    return {**base, **_readable(sample)}, words(sample)


def _readable(sample: Sample) -> Row:
    item = sample.trajectory
    reward = item.reward.total if item.reward else None
    return {
        "id": viewer_payload.identifier(sample), "step": viewer_payload.step(sample), "policy": sample.policy,
        "policy_order": policy_order(sample.policy)[0], "question_id": item.question_id, "question": item.question[:400],
        "question_kind": item.kind, "sample": item.sample, "level": item.level, "outcome": sample.outcome,
        "behaviour": sample.behaviour, "failures": len(item.failures),
        "errors": sum(not turn.well_formed for turn in item.turns), "tool_calls": item.tool_calls, "reward": reward,
        "advantage": item.advantage, "seconds": item.seconds, "turns": len(item.turns),
        "way": " › ".join(turn.action for turn in item.turns)[:200], "image": item.image, "answer": item.answer,
    }  # fmt: skip


def _unreadable(found: Found, line: Line) -> Row:
    place = hashlib.blake2b(f"{found.identity} {line.offset}".encode(), digest_size=6).hexdigest()
    return {
        "id": f"{found.key}-{found.step}-unreadable-{place}", "step": found.step, "policy": "", "policy_order": 99,
        "question_id": LAST, "question": f"Unreadable line at byte {line.offset:,}", "question_kind": "", "sample": 0,
        "level": "", "outcome": "unreadable", "behaviour": "", "failures": 0, "errors": 0, "tool_calls": 0,
        "reward": None, "advantage": None, "seconds": 0.0, "turns": 0, "way": line.problem[:200], "image": "",
        "answer": None,
    }  # fmt: skip


def words(sample: Sample) -> str:
    """Searchable text of a trajectory."""
    item = sample.trajectory
    parts = [
        item.question,
        item.answer or "",
        *item.answers,
        item.kind,
        item.question_id,
        item.excluded,
        item.treatment,
        sample.policy,
    ]
    for turn in item.turns:
        parts += _words_of(turn)
    return " ".join(parts)[:MOST_WORDS]


def _words_of(turn: Turn) -> list[str]:
    found = [turn.text, turn.error]
    if turn.observation:
        found.append(turn.observation.text)
        found += [text for failure in turn.observation.failures for text in (failure.kind, failure.message)]
        found += [text for result in turn.observation.results for text in (result.title, result.text)]
    return found


def brief(row: sqlite3.Row) -> Row:
    """A row in the form of the page's list."""
    image = f"/image/{row['archive']}/{row['image']}" if row["image"] else ""
    return {
        "id": row["id"], "key": row["stage"], "policy": row["policy"],
        "step": row["step"], "sample": row["sample"], "question": row["question"], "questionId": row["question_id"],
        "outcome": row["outcome"], "failures": row["failures"], "errors": row["errors"], "way": row["way"],
        "thumb": f"{image}?side=96" if image else "", "reward": row["reward"], "advantage": row["advantage"],
        "level": row["level"], "decision": row["decision"],
    }  # fmt: skip
