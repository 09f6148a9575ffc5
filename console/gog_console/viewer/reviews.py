"""Review decisions about trajectories: an append-only JSONL file.

Each line is complete and on disk before the page gets its confirmation. A later line about a trajectory overrides an
earlier one, which remains in the file. A line that a crash left incomplete is kept and reported; the next decision
starts a new line.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gog.errors import unwritable

NAME = "reviews.jsonl"

Side = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Review(BaseModel):
    """One decision."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trajectory: str = Field(min_length=1, max_length=200)
    """Identifier of the trajectory."""
    decision: Literal["accept", "reject", "fix", "note", "undo"]
    """What was decided."""
    box: tuple[Side, Side, Side, Side] | None = None
    """The corrected box of a `fix`: left, top, right, bottom in pixels of the image."""
    note: str = Field("", max_length=4000)
    """Comment of the reviewer."""
    time: str = ""
    """ISO 8601."""
    checkpoint: str = ""
    """Checkpoint that contains the trajectory: `curate/1200`."""
    question_id: str = ""
    """Question of the trajectory."""
    image: str = ""
    """Content hash of its image."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Review:
        if self.decision == "fix" and self.box is None:
            raise ValueError("a fix needs a box")
        if self.box and not (self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise ValueError("the box is empty")
        if self.decision == "note" and not self.note:
            raise ValueError("a note needs words")
        return self


class Reviews:
    """Decisions of a file, the last one of each trajectory. Raises UserError for a file that cannot be written."""

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        self.path = path / NAME if path.is_dir() else path
        self.clock = clock
        self.torn = 0
        self.latest: dict[str, Review] = {}
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab"):
                pass
            lines = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise unwritable(error, self.path) from None
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            self._keep(Review.model_validate_json(line))
        except ValidationError:
            self.torn += 1

    def _keep(self, review: Review) -> None:
        """Applies a line: a note keeps the decision, undo removes it."""
        before = self.latest.get(review.trajectory)
        if review.decision == "undo":
            self.latest.pop(review.trajectory, None)
        elif review.decision == "note" and before:
            self.latest[review.trajectory] = before.model_copy(update={"note": review.note, "time": review.time})
        else:
            note = review.note or (before.note if before else "")
            self.latest[review.trajectory] = review.model_copy(update={"note": note})

    def add(self, review: Review) -> Review | None:
        """Appends a decision.

        Returns:
            The current decision of the trajectory; None after an undo.

        Raises:
            UserError: the file cannot be written.
        """
        review = review.model_copy(update={"time": self.clock().isoformat(timespec="seconds")})
        line = json.dumps(review.model_dump(exclude_defaults=True), ensure_ascii=True).encode() + b"\n"
        with self._lock:
            try:
                self._append(line)
            except OSError as error:
                raise unwritable(error, self.path) from None
            self._keep(review)
            return self.latest.get(review.trajectory)

    def _append(self, line: bytes) -> None:
        with self.path.open("a+b") as stream:
            end = stream.seek(0, os.SEEK_END)
            if end:
                stream.seek(end - 1)
                line = line if stream.read(1) == b"\n" else b"\n" + line
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
