"""Whether two questions are the same, though their files differ: other ids, another size, another JPEG quality.

A question is known by its normalised words, its normalised gold answer and a signature of its image. The signature holds
the hash of the pixels, the directions of brightness between neighbouring cells, and the mean colours of cells. It
survives scaling and compression; crops, mirroring and paraphrased questions are not recognised.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image as PILImage

from gog import judging
from gog.dataset.records import Question
from gog.images import Image

CELLS = 16
"""Rows of cells, and columns, between which brightness is compared."""
STEP = 2
"""Levels of brightness by which neighbouring cells must differ: below it, compression decides which is brighter."""
EDGES_MOST, COLOURS_MOST = 24, 24
"""Directions (of 256) and levels of colour (of 255) in which signatures of one image differ at most [ours]."""
LONG = 8
"""Words from which on the same question with the same answer is the same without regard to its image."""
SHORTEST = 4
"""Normalised characters of an answer from which on its occurrence in a question is no accident."""


@dataclass(frozen=True)
class Signature:
    """What an image looks like."""

    pixels: str
    """Hash of the pixels."""
    edges: int
    """One bit for each of the 16 x 16 cells: whether the next one to the right is brighter."""
    colours: np.ndarray = field(repr=False, compare=False)
    """[8, 8, 3] int16: mean colours."""


def signature(image: Image) -> Signature:
    """The signature of an image."""
    whole = PILImage.fromarray(image.pixels)
    grey = np.asarray(whole.convert("L").resize((CELLS + 1, CELLS), PILImage.Resampling.BOX), dtype=np.int16)
    brighter = np.packbits(grey[:, 1:] - grey[:, :-1] > STEP)
    colours = np.asarray(whole.resize((8, 8), PILImage.Resampling.BOX), dtype=np.int16)
    return Signature(image.hash, int.from_bytes(brighter.tobytes()), colours)


def is_near(one: Signature, other: Signature) -> bool:
    """Whether two signatures are of the same image, perhaps scaled or compressed."""
    if one.pixels == other.pixels:
        return True
    differing = (one.edges ^ other.edges).bit_count()
    return differing <= EDGES_MOST and int(np.abs(one.colours - other.colours).max()) <= COLOURS_MOST


@dataclass(frozen=True)
class Known:
    """A question as it is compared."""

    id: str
    """Its id."""
    question: str
    """Its words, normalised."""
    answer: str
    """Its gold answer, normalised."""
    look: Callable[[], Signature] = field(repr=False, compare=False)
    """Makes the signature of its image; called when it is first compared."""

    @classmethod
    def of(cls, question: Question, look: Callable[[], Signature]) -> Known:
        """A question of a dataset."""
        words, answer = judging.normalise(question.question), judging.normalise(question.answers[0])
        return cls(question.id, words, answer, look)

    @cached_property
    def image(self) -> Signature:
        """The signature of its image. Raises UserError for one that cannot be read."""
        return self.look()


class Index:
    """Questions in which like ones are found. whole: whether an equal image alone makes a question like another one,
    which needs the image of every question."""

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self._by_pixels: dict[str, Known] = {}
        self._by_question: defaultdict[str, list[Known]] = defaultdict(list)
        self._by_answer: defaultdict[str, list[Known]] = defaultdict(list)

    def add(self, known: Known) -> None:
        """Adds a question. Raises UserError for an image that cannot be read, where it is needed."""
        if self.whole:
            self._by_pixels.setdefault(known.image.pixels, known)
            self._by_answer[known.answer].append(known)
        self._by_question[known.question].append(known)

    def like(self, known: Known) -> tuple[str, str]:
        """Why a question is like one that was added, and the id of that one; empty if it is like none.

        Raises:
            UserError: an image cannot be read.
        """
        if self.whole and (same := self._by_pixels.get(known.image.pixels)):
            return "the same image", same.id
        for other in self._by_question.get(known.question, ()):
            if is_near(known.image, other.image):
                return "the same question about the same image", other.id
            if self.whole and known.answer == other.answer and len(known.question.split()) >= LONG:
                return "the same long question with the same answer", other.id
        for other in self._by_answer.get(known.answer, ()):
            if is_near(known.image, other.image):
                return "the same answer about the same image", other.id
        return "", ""


def leaked_answer(question: Question) -> str:
    """The accepted answer that a question gives away; empty if it gives none away.

    An answer counts if it occurs as whole words and is long enough not to be an accident. A question that offers a choice
    ("red or blue?") gives nothing away.
    """
    if " or " in question.question.lower():
        return ""
    given = (answer for answer in question.answers if len(judging.normalise(answer)) >= SHORTEST)
    return next((answer for answer in given if judging.mentions(question.question, answer)), "")
