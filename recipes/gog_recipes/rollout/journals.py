"""The journals of a stage's plays: what an earlier attempt left of one, and where this one appends.

Every rank reads the records of its own questions and appends to objects of its own, so an attempt may have another number
of ranks than the one before. A question is taken from the journal once per process: where a stage plays it again,
because failures spoiled the first play, it is played anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from dataclasses import dataclass, field

from gog import journal, wording
from gog.dataset import Question
from gog.images import Image
from gog.journal import NO_WEIGHTS, Found, Line
from gog.store import Store
from gog.trajectory import Trajectory, outline
from gog_recipes.runtime.ranks import Ranks

FOLDER_PAUSE, BUCKET_PAUSE = 0.02, 0.5
"""Seconds between two objects of a process, at most, in a folder and in a bucket, where requests cost money."""


@dataclass(frozen=True)
class Resumed:
    """What an earlier attempt left of a trajectory."""

    found: Found
    """Its records."""
    images: dict[str, Image]
    """The images that its observations show, by content hash."""

    @property
    def oldest(self) -> int:
        """The oldest version of the weights that sampled a turn of it."""
        return min((each.version for each in self.found.segments if each.source == "model"), default=0)


class PlayJournal:
    """The journal of one play, for one rank.

    Args:
        reader: of what earlier attempts left.
        writer: appends; None for a play that is not journalled.
    """

    def __init__(self, reader: journal.Reader | None = None, writer: journal.Writer | None = None) -> None:
        self._reader, self._writer = reader, writer

    async def resumed(self, question: Question, samples: int) -> list[Resumed | None]:
        """What there is of a question's samples; None for one that starts from its beginning."""
        if self._reader is None:
            return [None] * samples
        found = [self._reader.found(question.id, sample) for sample in range(samples)]
        wanted = {image for each in found if each is not None for image in each.images()}
        images = await asyncio.to_thread(self._reader.images, wanted) if wanted else {}
        for sample in range(samples):
            self._reader.chains.forget(question.id, sample)
        return [None if each is None or not each.images() <= images.keys() else Resumed(each, images) for each in found]

    def outlines(self, question: Question, samples: int) -> list[Trajectory] | None:
        """The outlines of a question's samples; None unless all of them have been judged."""
        if self._reader is None or not all(self._reader.chains.has_ended(question.id, n) for n in range(samples)):
            return None
        found = [self._reader.found(question.id, sample) for sample in range(samples)]
        taken = [each.trajectory for each in found if each is not None and each.trajectory is not None]
        return [outline(item) for item in taken] if len(taken) == samples else None

    def taken_over(self, questions: Sequence[Question], samples: int) -> tuple[int, int]:
        """How many of these questions' trajectories are judged already, and how many turns the others have."""
        if self._reader is None:
            return 0, 0
        keys = [(question.id, sample) for question in questions for sample in range(samples)]
        judged = sum(self._reader.chains.has_ended(*key) for key in keys)
        others = (self._reader.found(*key) for key in keys if not self._reader.chains.has_ended(*key))
        return judged, sum(len(each.turns) for each in others if each is not None)

    def line(
        self, question: Question, sample: int, resumed: Resumed | None, weights: Mapping[int, str] = NO_WEIGHTS
    ) -> Line | None:
        """Where a trajectory's records go; None for a play that is not journalled. weights: as in `Rollouts`."""
        if self._writer is None:
            return None
        return self._writer.line(question.id, sample, resumed.found.head if resumed else "", weights)

    def close(self) -> None:
        """Returns when everything is written. Raises what writing raised."""
        if self._writer is not None:
            self._writer.close()


@dataclass
class Journals:
    """The journals of a stage."""

    store: Store
    """Where they are kept."""
    stage: str
    """Key of the stage."""
    decided_by: str
    """Digest of the settings and of the dataset, which decide the stage's trajectories together with the weights."""
    pause: float = FOLDER_PAUSE
    """Seconds between two objects of a process."""
    ahead: int = 0
    """Steps of which plays may be open beside that of an earlier step."""
    _played: set[tuple[str, int, str]] = field(default_factory=set)
    """Policy, step and question of what this process has played of its newest steps."""

    @contextlib.asynccontextmanager
    async def open(
        self,
        ranks: Ranks,
        questions: Sequence[Question],
        *,
        policy: str,
        step: int,
        weights: str,
        whole: Container[str] | None,
    ) -> AsyncIterator[PlayJournal]:
        """The journal of a play; everything is durable when it ends well. All ranks at once.

        Args:
            ranks: the processes that share the questions.
            questions: those of this rank.
            policy: name of the policy.
            step: that is played.
            weights: digest of the policy's weights.
            whole: ids of questions of which ended trajectories are needed with turns and tokens; None for all.
        """
        digest = digest_of([self.decided_by, weights])
        play = journal.Play(self.stage, policy, step, digest)
        keys, generation, attempt = ranks.broadcast(
            (*journal.listed(self.store, play), uuid.uuid4().hex[:8]) if ranks.is_main else ([], 0, "")
        )
        self._played = {each for each in self._played if each[0] == policy and each[1] >= step - self.ahead}
        fresh = {each.id for each in questions if (policy, step, each.id) not in self._played}
        self._played |= {(policy, step, each.id) for each in questions}
        reader = journal.Reader(self.store, keys if fresh else [], journal.Chains(fresh, whole))
        await asyncio.to_thread(reader.read)

        def put(number: int, data: bytes) -> None:
            self.store.put_object(play.key(generation + 1, attempt, ranks.rank, number), data)

        opened = PlayJournal(reader, journal.Writer(put, self.pause))
        try:
            yield opened
        finally:
            await asyncio.to_thread(opened.close)


async def resumed_line(
    journal: PlayJournal, ranks: Ranks, questions: Sequence[Question], samples: int, what: str
) -> str:
    """What a resumed play takes over, for the log; empty if that is nothing. All ranks at once.

    Args:
        journal: of the play.
        ranks: the processes that share the questions.
        questions: those of this rank.
        samples: trajectories per question.
        what: is resumed: `step 12`, or the name of a policy.
    """
    own = await asyncio.to_thread(journal.taken_over, questions, samples)
    counts = ranks.gather((*own, len(questions) * samples))
    judged, turns, trajectories = (sum(each) for each in zip(*counts, strict=True))
    if not judged and not turns:
        return ""
    finished = wording.plural(judged, "trajectory finished", "trajectories finished")
    return f"resumed {what}: {finished}, {wording.plural(turns, 'turn')} taken over, {trajectories - judged} to play"


def digest_of(values: object) -> str:
    """A digest of plain values, in hex."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()


def pause_of(uri: str) -> float:
    """Seconds between two objects in the store of this address."""
    return BUCKET_PAUSE if uri.startswith("s3://") else FOLDER_PAUSE
