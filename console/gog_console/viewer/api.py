"""Requests of the page, answered as JSON and images. Independent of HTTP: path and parameters in, answer out.

Every request is answered, whatever the archives contain: an unreadable line is returned with its problem and its first
characters, a missing image is left out, a missing archive is one sentence.
"""

from __future__ import annotations

import functools
import json
import sqlite3
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gog import trajectory_zip as archives
from gog import validation, wording
from gog.errors import UserError
from gog.reviews import Review
from gog_console import formatting
from gog_console.report import summary, viewer_payload
from gog_console.report.model import Sample
from gog_console.viewer import index, queries, schema
from gog_console.viewer.lines import Archive, Line
from gog_console.viewer.reviews import Reviews
from gog_console.viewer.sources import Source
from gog_console.viewer.tokens import Vocabulary

PNG = b"\x89PNG\r\n\x1a\n"
LARGE = 1536
"""Longest side in pixels; larger images are scaled down, boxes remain in pixels of the original."""
THUMBNAIL = 96
"""Longest side of a thumbnail in pixels."""
RAW = 20_000
"""Bytes shown of an unreadable line."""
NOT_FILTERS = ("sort", "down", "offset", "limit", "id")

Query = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """Answer to a request."""

    body: bytes
    """Content."""
    kind: str = "application/json"
    """Media type."""
    status: int = 200
    """HTTP status."""
    keep: bool = False
    """Whether the browser may cache it."""


def as_json(value: Any, status: int = 200) -> Answer:
    """A value as JSON; numbers that are not finite become null."""
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(summary.finite(value), separators=(",", ":"), allow_nan=False)
    return Answer(text.encode(), status=status)


def refused(status: int, what: str) -> Answer:
    """An error with its reason."""
    return as_json({"error": what}, status)


class Api:
    """Answers requests about one source. Thread-safe."""

    def __init__(
        self, place: Source, indexer: index.Indexer, reviews: Reviews | None, vocabulary: Vocabulary | None = None
    ) -> None:
        self.place, self.indexer, self.reviews, self.vocabulary = place, indexer, reviews, vocabulary
        self._facets: tuple[Any, dict[str, Any]] = ((), {})
        self._lock = threading.Lock()
        self._connection = index.connect(indexer.path)
        self._connection.execute("CREATE TEMP TABLE reviews (trajectory TEXT PRIMARY KEY, decision TEXT NOT NULL)")
        for review in reviews.latest.values() if reviews else ():
            self._decided(review.trajectory, review)
        self._shrunk = functools.lru_cache(maxsize=512)(self._smaller)

    def get(self, path: str, query: Query) -> Answer:
        """Answers a GET request; an invalid one, or one for something unknown, with a sentence."""
        name = path.removeprefix("/api/")
        requests: dict[str, Callable[[Query], Any]] = {
            "run": lambda _: self.run(),
            "facets": lambda _: self.facets(),
            "list": self.rows,
            "place": self.position,
            "trajectory": self.trajectory,
        }
        try:
            if path.startswith("/image/"):
                return self.image(path, query)
            if name not in requests:
                return refused(404, "no such page")
            return as_json(requests[name](query))
        except UserError as error:
            return refused(400, error.sentence())
        except LookupError as error:
            return refused(404, str(error.args[0]))

    # ---- requests

    def run(self) -> dict[str, Any]:
        """State of the run and of the index."""
        progress = self.indexer.progress
        return {
            "name": self.place.name, "address": self.place.address, "state": formatting.spaced(progress.listing.state),
            "progress": list(progress.listing.progress), "busy": progress.busy, "share": round(progress.share, 3),
            "archives": progress.archives, "done": progress.done,
            "problems": [{"where": where, "what": what} for where, what in [*progress.problems, *self._torn()]],
            "total": self._read(lambda db: db.execute(f"SELECT count(*) FROM rows WHERE {queries.LIVE}").fetchone()[0]),
            "reviews": None if self.reviews is None else {"file": str(self.reviews.path), "count": len(self.reviews.latest)},
        }  # fmt: skip

    def facets(self) -> dict[str, Any]:
        """Values of the filters, with their titles."""
        found = self._read(self._fresh_facets)
        stages = [{"value": row["stage"], "name": _stage_name(row)} for row in found["stages"]]
        policies = [{"value": policy, "name": formatting.policy(policy)} for policy in found["policies"]]
        return {**found, "stages": stages, "policies": policies, "reviews": self.reviews is not None}

    def _fresh_facets(self, db: sqlite3.Connection) -> dict[str, Any]:
        """Facets, computed again only when the index has changed."""
        mark = tuple(db.execute("SELECT (SELECT max(row) FROM rows), group_concat(live, '') FROM archives").fetchone())
        if self._facets[0] != mark:
            self._facets = mark, queries.facets(db)
        return self._facets[1]

    def rows(self, query: Query) -> dict[str, Any]:
        """A page of the list, the total number of rows, and the number by outcome."""
        filters, sort, down = _filters_of(query)
        offset, limit = _whole(query, "offset", 0), _whole(query, "limit", queries.PAGE)

        def read(db: sqlite3.Connection) -> tuple[list[sqlite3.Row], dict[str, int]]:
            return queries.page(db, filters, sort, down, offset, limit), queries.counts(db, filters)

        rows, counts = self._read(read)
        chosen = filters.get("outcome")
        total = counts.get(chosen, 0) if chosen else sum(counts.values())
        return {"total": total, "counts": counts, "offset": offset, "rows": [_brief(row) for row in rows]}

    def position(self, query: Query) -> dict[str, Any]:
        """Index of a trajectory in the list."""
        filters, sort, down = _filters_of(query)
        return {"index": self._read(lambda db: queries.place(db, filters, sort, down, query.get("id", "")))}

    def trajectory(self, query: Query) -> dict[str, Any]:
        """One complete trajectory, its group, and the same question elsewhere. Raises LookupError."""
        id = query.get("id", "")
        row = self._read(lambda db: queries.one(db, id))
        if row is None:
            raise LookupError(f"no trajectory {id!r}")
        group = self._read(lambda db: queries.group(db, row))
        others = self._read(lambda db: queries.compared(db, row))
        review = self.reviews.latest.get(id) if self.reviews else None
        return {
            "trajectory": self._entry(row),
            "group": [_brief(each) for each in group],
            "others": [_brief(each) for each in others],
            "review": review.model_dump() if review else None,
        }

    def _entry(self, row: sqlite3.Row) -> dict[str, Any]:
        where = {"id": row["id"], "stage": _stage_name(row), "key": row["stage"], "questionId": row["question_id"]}
        try:
            opened = self.indexer.archive(row["archive"])
            line = opened.line(row["offset"], row["length"])
        except (UserError, OSError) as error:
            what = error.sentence() if isinstance(error, UserError) else str(error)
            return {**where, "outcome": "unreadable", "problem": what, "raw": ""}
        if line.trajectory is None:
            return {**where, "outcome": "unreadable", "problem": line.problem, "raw": _raw(opened, line)}
        sample = Sample(line.trajectory, row["stage"], row["kind"], row["step"])
        entry = viewer_payload.entry(sample)
        if self.vocabulary:
            self.vocabulary.name_tokens(entry["turns"], line.trajectory)
        own = {**where, "sample": row["sample"], "images": self._images(opened, row["archive"], line)}
        return {**entry, **line.extra, **own}

    def _images(self, opened: Archive, number: int, line: Line) -> dict[str, Any]:
        """URLs and sizes of the images that exist."""
        assert line.trajectory is not None
        found = {}
        for image in archives.shown(line.trajectory):
            size = _size(opened.png(image) or b"")
            if size:
                source = f"/image/{number}/{image}" + (f"?side={LARGE}" if max(size) > LARGE else "")
                found[image] = {"src": source, "w": size[0], "h": size[1]}
        return found

    def image(self, path: str, query: Query) -> Answer:
        """`/image/<archive>/<hash>`, scaled down to `?side=` if given. Raises LookupError."""
        number, _, image = path.removeprefix("/image/").partition("/")
        side = _whole(query, "side", 0)
        if not number.isdecimal() or side not in (0, THUMBNAIL, LARGE):
            raise LookupError("no such image")
        kind, data = self._shrunk(int(number), image, side)
        return Answer(data, f"image/{kind}", keep=True)

    def _smaller(self, number: int, image: str, side: int) -> tuple[str, bytes]:
        png = self.indexer.archive(number).png(image) or b""
        size = _size(png)
        if not size:
            raise LookupError("the image is missing from its archive, or damaged")
        if not side or max(size) <= max(side, viewer_payload.AS_IT_IS):
            return "png", png
        kind, data, _ = viewer_payload.shrunk(png, side)
        return kind, data

    # ---- reviews

    def decide(self, body: bytes) -> Answer:
        """Stores a review decision; answers with the current decision of its trajectory."""
        if self.reviews is None:
            return refused(409, "reviewing is off: start with --reviews FILE")
        try:
            review = Review.model_validate_json(body)
        except ValidationError as error:
            return refused(400, f"not a decision: {validation.first_sentence(error)}")
        row = self._read(lambda db: queries.one(db, review.trajectory))
        if row is None:
            return refused(404, "no such trajectory")
        where = {"checkpoint": self._checkpoint(row), "question_id": row["question_id"], "image": row["image"]}
        try:
            kept = self.reviews.add(review.model_copy(update=where))
        except UserError as error:
            return refused(507, error.sentence())
        self._read(lambda _: self._decided(review.trajectory, kept))
        return as_json({"review": kept.model_dump() if kept else None, "count": len(self.reviews.latest)})

    def _checkpoint(self, row: sqlite3.Row) -> str:
        query = "SELECT stage, step FROM archives WHERE id = ?"
        found = self._read(lambda db: db.execute(query, (row["archive"],)).fetchone())
        return f"{found['stage']}/{found['step']}"

    def _decided(self, trajectory: str, review: Review | None) -> None:
        self._connection.execute("DELETE FROM temp.reviews WHERE trajectory = ?", (trajectory,))
        if review and review.decision != "note":
            self._connection.execute("INSERT INTO temp.reviews VALUES (?, ?)", (trajectory, review.decision))

    def _torn(self) -> list[tuple[str, str]]:
        torn = self.reviews.torn if self.reviews else 0
        return (
            [(str(self.reviews.path), f"{wording.plural(torn, 'line')} damaged and skipped")]
            if torn and self.reviews
            else []
        )

    def _read(self, read: Callable[[sqlite3.Connection], Any]) -> Any:
        with self._lock:
            return read(self._connection)


def _brief(row: sqlite3.Row) -> dict[str, Any]:
    found = schema.brief(row)
    return {**found, "stage": _stage_name(row), "policyName": formatting.policy(row["policy"])}


def _stage_name(row: Mapping[str, Any] | sqlite3.Row) -> str:
    return formatting.stage(row["kind"], row["arm"]) if row["kind"] else row["stage"]


def _filters_of(query: Query) -> tuple[dict[str, str], str, bool]:
    filters = {name: value for name, value in query.items() if name not in NOT_FILTERS}
    return filters, query.get("sort") or "place", query.get("down") == "1"


def _whole(query: Query, name: str, default: int) -> int:
    value = query.get(name, "")
    if value and not (value.isdecimal() and len(value) < 10):
        raise UserError(f"{value[:40]!r} is not a number", where=name)
    return int(value) if value else default


def _size(png: bytes) -> tuple[int, int] | None:
    """(width, height) from the header of a PNG; None for anything else."""
    if len(png) < 24 or not png.startswith(PNG):
        return None
    width, height = struct.unpack(">II", png[16:24])
    return (width, height) if width and height else None


def _raw(opened: Archive, line: Line) -> str:
    return opened.raw(line.offset, min(line.length, RAW)).decode("utf-8", "backslashreplace")
