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

from pydantic import ValidationError

from gog import reviews
from gog.errors import unwritable
from gog.reviews import Review

NAME = "reviews.jsonl"


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
            reviews.apply(self.latest, Review.model_validate_json(line))
        except ValidationError:
            self.torn += 1

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
            reviews.apply(self.latest, review)
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
