"""Tells datasets apart, so that a stage never continues with another one than it began with.

Lines are compared as a whole, images by name and size only, and of many images an even sample: reading a million of them
would take an hour at every start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from gog.dataset.records import Question

CHUNK = 1 << 20
"""Bytes that are read at once."""
IMAGES = 4096
"""Images whose sizes are compared at most."""


def digest(folder: Path, split: str, questions: Sequence[Question]) -> str:
    """A digest of what a stage reads of a dataset.

    Args:
        folder: in gog's own form.
        split: whose questions the stage reads.
        questions: of that split, all of them.

    Returns:
        32 hex digits: of the lines of the split and of the corpus, and of the sizes of at most IMAGES images. A file that
        is missing counts as empty.
    """
    state = hashlib.blake2b(digest_size=16)
    for name in (f"{split}.jsonl", "corpus.jsonl"):
        path = folder / name
        state.update(f"{name} {_size(path)}\n".encode())
        if path.is_file():
            with path.open("rb") as stream:
                while chunk := stream.read(CHUNK):
                    state.update(chunk)
    every = -(-len(questions) // IMAGES) or 1
    for question in questions[::every]:
        state.update(f"{question.image} {_size(folder / question.image)}\n".encode())
    return state.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
