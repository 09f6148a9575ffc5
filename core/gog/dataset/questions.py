"""Questions of a dataset folder in gog's own form, as stages read them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gog.dataset import formats, jsonl
from gog.dataset.records import CORPUS, INDEX, IndexedImage, Question
from gog.errors import UserError


def read_questions(folder: Path, split: str) -> list[Question]:
    """All questions of a split, with unique ids and images that exist.

    Raises:
        UserError: the first line that is not valid, by file, line, field and cause.
    """
    questions = []
    for row in formats.read(formats.load(formats.OWN), folder, split):
        if isinstance(row, UserError):
            raise row
        questions.append(row.question)
    return questions


def splits(path: Path, format: str | None = None) -> tuple[str, ...]:
    """Names of a dataset's splits. format: its name; None: recognised by content. Raises UserError as `check`."""
    return formats.find(path, format).splits(path)


def files(folder: Path, splits: Iterable[str]) -> set[str]:
    """Every file of a dataset folder that a run reads, relative to the folder.

    Raises:
        UserError: as `read_questions`.
    """
    found = set()
    for split in splits:
        found |= {f"{split}.jsonl", *(question.image for question in read_questions(folder, split))}
    if (folder / INDEX).is_file():
        found |= {INDEX.as_posix(), *(line.image for line in jsonl.read_lines(folder / INDEX, IndexedImage))}
    return found | ({CORPUS.as_posix()} if (folder / CORPUS).is_file() else set())
