"""Review decisions about demonstrations, as `gog view --reviews` appends them and as training reads them back.

Each line is one decision. A later line about a trajectory overrides an earlier one; a note leaves the decision, undo
removes it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gog import behaviour, validation
from gog.errors import UserError
from gog.trajectory import Trajectory

NAME = 120
"""Characters at which the viewer cuts the name of a trajectory."""
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


def apply(latest: dict[str, Review], review: Review) -> None:
    """Applies a line to the decisions so far, by trajectory: a note keeps the decision, undo removes it."""
    before = latest.get(review.trajectory)
    if review.decision == "undo":
        latest.pop(review.trajectory, None)
    elif review.decision == "note" and before:
        latest[review.trajectory] = before.model_copy(update={"note": review.note, "time": review.time})
    else:
        note = review.note or (before.note if before else "")
        latest[review.trajectory] = review.model_copy(update={"note": note})


def read(path: Path) -> dict[str, Review]:
    """The decisions of a file that hold, by trajectory.

    Raises:
        UserError: the file cannot be read, or a line is not a decision: to train without a rejection that could not be
            read would be worse than to stop.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(path), remedy="name a file of gog view") from None
    latest: dict[str, Review] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            apply(latest, Review.model_validate_json(line))
        except ValidationError as error:
            what = f"not a review decision: {validation.first_sentence(error)}"
            raise UserError(what, where=f"{path}:{number}", remedy="correct or remove the line") from None
    return latest


class Decisions:
    """The decisions that hold, found by trajectory."""

    def __init__(self, reviews: Iterable[Review]) -> None:
        self._by_question: defaultdict[str, list[Review]] = defaultdict(list)
        for review in reviews:
            self._by_question[review.question_id].append(review)

    def refusal(self, trajectory: Trajectory) -> str:
        """Why reviewers leave a demonstration out; empty if they do not.

        A rejected one is left out. One whose box was fixed is left out if it gazed at something else than that box.
        """
        for review in (*self._by_question[trajectory.question_id], *self._by_question[""]):
            if about(review, trajectory) and (why := _refusal(review, trajectory)):
                return why
        return ""


def _refusal(review: Review, trajectory: Trajectory) -> str:
    if review.decision == "reject":
        return f"rejected in review{f': {review.note}' if review.note else ''}"
    if review.decision == "fix":
        gazes = behaviour.gazes(trajectory.model_copy(update={"region": review.box}))
        if gazes and not gazes[-1]:
            return "its last gaze is not at the box that the review fixed"
    return ""


def about(review: Review, trajectory: Trajectory) -> bool:
    """Whether a decision is about a trajectory. The viewer names one by checkpoint, policy, question and sample, in at
    most NAME characters of few kinds; who writes decisions by hand may give its id."""
    if review.image not in ("", trajectory.image) or review.question_id not in ("", trajectory.question_id):
        return False
    named = _plain(f"-{trajectory.policy}-{trajectory.question_id}-{trajectory.sample}")
    cut = len(review.trajectory) == NAME and f"-{_plain(trajectory.policy)}-" in review.trajectory
    return review.trajectory == trajectory.id or review.trajectory.endswith(named) or (cut and bool(review.image))


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text)
