"""Training questions that an evaluation asks, too, so that its score would show what was remembered.

Every image of a large pool cannot be compared each time a run starts. Files are therefore compared by hash, words and
answers by equality, and images are decoded only where words or the answer are those of an evaluated question, up to a
limit. That finds every question that was copied. One with other words and an image that was scaled or compressed is
found if its answer is the same; crops and paraphrases are not recognised (`likeness`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gog import images, wording
from gog.dataset import checks, formats, likeness
from gog.dataset.likeness import Known
from gog.errors import UserError

TRAIN = "train"
"""The split that stages learn from."""
LOOKED_AT = 2_000
"""Images that a check before a run decodes at most: some seconds of photographs [ours]."""
SHOWN = 10
"""Notes that are printed."""
SAME = "the same question about the same image"


@dataclass(frozen=True)
class Shared:
    """A question of `train` that is like one of an evaluated split."""

    question: str
    """Its id in `train`."""
    other: str
    """The id of the evaluated question."""
    split: str
    """The split of that one."""
    reason: str
    """What is alike."""
    is_same: bool
    """Whether words and pixels are equal; otherwise a reader has to judge."""

    def sentence(self) -> str:
        """What is shared, with both ids."""
        return f"question {self.question!r} of {TRAIN} is {self.other!r} of {self.split}: {self.reason}"


@dataclass(frozen=True)
class Found:
    """What a comparison found."""

    shared: tuple[Shared, ...]
    """One for each question of `train` that is like an evaluated one, in the order of the file."""
    unseen: int
    """Questions with the words or answer of an evaluated one whose images were not compared, because of the limit."""


def find(path: Path, evaluated: Iterable[str], *, format: str | None = None, most: int | None = LOOKED_AT) -> Found:
    """Compares `train` with evaluated splits of the same dataset, whose rows were found valid before.

    Args:
        path: a dataset folder, or a file or folder in another format.
        evaluated: names of the splits; `train` itself is not compared.
        format: name of the format; None: recognised by content.
        most: images that are decoded at most; None: all that are needed.

    Raises:
        UserError: an image cannot be read.
    """
    reader = formats.find(path, format)
    asked = _Evaluated(most)
    for split in dict.fromkeys(evaluated):
        for row in _rows(reader, path, split) if split != TRAIN else ():
            asked.add(split, row)
    shared = tuple(each for row in _rows(reader, path, TRAIN) if (each := asked.like(row)) is not None)
    return Found(shared, asked.unseen(shared))


def _rows(reader: formats.Reader, path: Path, split: str) -> Iterator[formats.Row]:
    return (row for row in formats.read(reader, path, split) if isinstance(row, formats.Row))


def refusal(same: Sequence[Shared], where: str) -> UserError:
    """The error about questions that are trained on and evaluated.

    Args:
        same: those questions, at least one.
        where: field of the manifest.
    """
    remedy = f"remove it from {TRAIN}, or evaluate on another split"
    lines = [UserError(each.sentence(), where=where, remedy=remedy).sentence() for each in same[: checks.MOST]]
    more = [f"{len(same):,} questions in all"] if len(same) > checks.MOST else []
    return UserError("\n".join([*lines, *more]))


def sentences(found: Found) -> list[str]:
    """Notes about what is like an evaluated question: the first of them, and counts of the others."""
    made = [each.sentence() for each in found.shared[:SHOWN]]
    if len(found.shared) > SHOWN:
        made.append(f"{len(found.shared) - SHOWN:,} more questions of {TRAIN} are like evaluated ones")
    if found.unseen:
        made.append(
            f"{wording.plural(found.unseen, 'question')} of {TRAIN} with the words or answer of an evaluated one: images "
            "were compared by file only; gog validate DATASET compares all of them"
        )
    return made


@dataclass(frozen=True)
class _Entry:
    """An evaluated question."""

    split: str
    """Its split."""
    known: Known
    """As it is compared. The bytes of an embedded image are kept, because evaluated splits are small."""
    file: str
    """Hash of the encoded image."""


class _Evaluated:
    """Evaluated questions in which those of `train` are found."""

    def __init__(self, most: int | None) -> None:
        self._unseen: set[str] = set()
        self._left = {"words": most, "answer": most}  # equal answers are frequent, and must not use up what words need
        self._sizes: set[int] = set()
        self._by_file: dict[str, _Entry] = {}
        self._by_words_and_file: dict[tuple[str, str], _Entry] = {}
        self._by_words_and_answer: dict[tuple[str, str], _Entry] = {}
        self._by_words: defaultdict[str, list[_Entry]] = defaultdict(list)
        self._by_answer: defaultdict[str, list[_Entry]] = defaultdict(list)

    def add(self, split: str, row: formats.Row) -> None:
        """Adds a question of an evaluated split."""
        known = _known(row)
        entry = _Entry(split, known, _digest(row.image))
        self._sizes.add(_size(row.image))
        self._by_file.setdefault(entry.file, entry)
        self._by_words_and_file.setdefault((known.question, entry.file), entry)
        self._by_words_and_answer.setdefault((known.question, known.answer), entry)
        self._by_words[known.question].append(entry)
        self._by_answer[known.answer].append(entry)

    def like(self, row: formats.Row) -> Shared | None:
        """What a question of `train` shares with an evaluated one: the same question first, then what is alike."""
        known = _known(row)
        file = _digest(row.image) if _size(row.image) in self._sizes else ""
        if (entry := self._by_words_and_file.get((known.question, file))) is not None:
            return _shared(known, entry, SAME, is_same=True)
        if (entry := self._near(known, self._by_words.get(known.question, ()), "words")) is not None:
            is_same = entry.known.image.pixels == known.image.pixels
            return _shared(known, entry, SAME if is_same else f"{SAME}, scaled or compressed", is_same=is_same)
        if (entry := self._by_file.get(file)) is not None:
            return _shared(known, entry, "the same image")
        entry = self._by_words_and_answer.get((known.question, known.answer))
        if entry is not None and len(known.question.split()) >= likeness.LONG:
            return _shared(known, entry, "the same long question with the same answer")
        entry = self._near(known, self._by_answer.get(known.answer, ()), "answer")
        return None if entry is None else _shared(known, entry, "the same answer about the same image")

    def unseen(self, shared: Iterable[Shared]) -> int:
        """Questions of `train` of which an image was not compared, besides those that share something in any case."""
        return len(self._unseen - {each.question for each in shared})

    def _near(self, known: Known, entries: Sequence[_Entry], kind: str) -> _Entry | None:
        """The first entry with the same pixels, else the first one with the same image, perhaps scaled or compressed."""
        if not entries:
            return None
        if not self._may_look(known, kind) or not all(self._may_look(each.known, kind) for each in entries):
            self._unseen.add(known.id)
            return None
        near = [each for each in entries if likeness.is_near(known.image, each.known.image)]
        equal = (each for each in near if each.known.image.pixels == known.image.pixels)
        return next(equal, near[0] if near else None)

    def _may_look(self, known: Known, kind: str) -> bool:
        """Whether the image of a question is decoded, or may be."""
        left = self._left[kind]
        if left is None or "image" in known.__dict__:
            return True
        self._left[kind] = max(0, left - 1)
        return left > 0


def _shared(known: Known, entry: _Entry, reason: str, *, is_same: bool = False) -> Shared:
    return Shared(known.id, entry.known.id, entry.split, reason, is_same)


def _known(row: formats.Row) -> Known:
    return Known.of(row.question, _look(row.image))


def _look(image: Path | bytes) -> Callable[[], likeness.Signature]:
    return lambda: likeness.signature(images.read(image) if isinstance(image, Path) else images.decode(image))


def _size(image: Path | bytes) -> int:
    return image.stat().st_size if isinstance(image, Path) else len(image)


def _digest(image: Path | bytes) -> str:
    return hashlib.blake2b(image.read_bytes() if isinstance(image, Path) else image, digest_size=16).hexdigest()
