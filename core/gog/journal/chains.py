"""Which records make up a trajectory. Pure.

Each record names the one that it continues by digest. So records of several attempts never mix: an attempt that could
not read an earlier one's last record branches off before it, and the branch that came last counts. A record that begins
a trajectory replaces what there was of it: the question was played again.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from pydantic import ValidationError

from gog.journal.records import Envelope, Kept
from gog.trajectory import Segment, StopReason, Trajectory, Turn

Key = tuple[str, int]
"""Question and sample."""


@dataclass(frozen=True)
class Found:
    """What the journal holds of a trajectory."""

    head: str
    """Digest of its last record."""
    turns: tuple[Turn, ...]
    """Its turns; the last one without an observation if that was lost. Empty of an outline."""
    segments: tuple[Segment, ...]
    """Its tokens; empty of an outline."""
    answer_next: str = ""
    """The cap for which the last observation asked the model to answer next."""
    stop: StopReason | None = None
    """Why the episode ended; None if it did not."""
    seconds: float = 0.0
    """Wall-clock time of the episode so far."""
    trajectory: Trajectory | None = None
    """The judged trajectory, or its outline where it is not kept whole; None if it has no verdict yet."""

    def images(self) -> set[str]:
        """Content hashes of the images that its observations show or offer."""
        seen = [turn.observation for turn in self.turns if turn.observation]
        crops = {each.crop for observation in seen for each in observation.candidates if each.crop}
        return crops | {image for observation in seen for image in observation.images}


@dataclass
class Chains:
    """The newest state of every trajectory of which records were added."""

    wanted: Container[str] | None = None
    """Ids of questions whose records are taken; None for all."""
    whole: Container[str] | None = None
    """Ids of questions whose ended trajectories are kept with turns and segments; None for all."""
    _records: dict[Key, list[tuple[str, bool, bytes]]] = field(default_factory=dict)
    """Digest, whether it ended, and body of each record, in order."""

    def add(self, envelope: Envelope, digest: str, body: bytes) -> None:
        """Takes a record. Records are added in the order in which they were written, attempt after attempt."""
        if self.wanted is not None and envelope.question not in self.wanted:
            return
        key = (envelope.question, envelope.sample)
        chain = self._records.get(key, [])
        if envelope.after:
            place = next((at for at, (head, _, _) in enumerate(chain) if head == envelope.after), None)
            if place is None:
                return
            chain = chain[: place + 1]
        else:
            chain = []
        chain = [*chain, (digest, envelope.ended, body)]
        if envelope.ended and self.whole is not None and envelope.question not in self.whole:
            chain = chain[-1:]
        self._records[key] = chain

    def found(self, question: str, sample: int) -> Found | None:
        """What there is of a trajectory, up to the first record that cannot be read; None if there is nothing."""
        chain = self._records.get((question, sample), [])
        turns: list[Turn] = []
        segments: list[Segment] = []
        found = None
        for head, ended, body in chain:
            try:
                if ended:
                    trajectory = _whole(Trajectory.model_validate_json(body), turns, segments)
                    return Found(head, tuple(turns), tuple(segments), stop=trajectory.stop, trajectory=trajectory)
                kept = Kept.model_validate_json(body)
            except ValidationError:
                return found
            if kept.number not in (len(turns), len(turns) - 1):
                return found
            turns[kept.number :] = [kept.turn]
            segments += kept.segments
            found = Found(head, tuple(turns), tuple(segments), kept.answer_next, kept.stop, kept.seconds)
        return found

    def has_ended(self, question: str, sample: int) -> bool:
        """Whether there is a judged trajectory."""
        chain = self._records.get((question, sample), [])
        return bool(chain) and chain[-1][1]

    def forget(self, question: str, sample: int) -> None:
        """Drops a trajectory, which saves its memory."""
        self._records.pop((question, sample), None)


def _whole(ended: Trajectory, turns: list[Turn], segments: list[Segment]) -> Trajectory:
    """An ended trajectory, of which the journal holds the outline, with its turns and segments if they were kept."""
    if not turns:
        return ended
    return ended.model_copy(update={"turns": tuple(turns), "segments": tuple(segments)})
