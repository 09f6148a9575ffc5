"""gog's own format: a folder with `<split>.jsonl` and the images that its lines name.

{"id": "q1", "image": "images/q1.png", "question": "what is the height of the red ring ?", "answers": ["n33"],
 "evidence": {"kind": "fact", "expression": "red ring", "region": [58, 58, 79, 79]}}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gog.dataset import jsonl, paths, records
from gog.dataset.foreign import tables
from gog.dataset.formats import Row
from gog.errors import UserError

USUAL_SPLITS = ("train", "test")
FIELDS = {"id", "image", "question", "answers"}


class Reader:
    """Reads a gog dataset folder."""

    def detect(self, path: Path) -> bool:
        return any(_has_questions(path / f"{split}.jsonl") for split in self.splits(path))

    def splits(self, path: Path) -> tuple[str, ...]:
        """`train` and `test` where they exist, then other files whose first line looks like a question."""
        usual = [split for split in USUAL_SPLITS if (path / f"{split}.jsonl").is_file()]
        others = sorted(each.stem for each in path.glob("*.jsonl") if each.stem not in usual and _has_questions(each))
        return (*usual, *others)  # a usual name says too little to recognise the format, which `detect` does

    def rows(self, path: Path, split: str) -> Iterator[Row | UserError]:
        for line in jsonl.scan(path / f"{split}.jsonl", records.Question):
            if isinstance(line, UserError):
                yield line
                continue
            where = f"{path / split}.jsonl:{line.number}"
            name = line.record.image
            yield paths.error(path, name, where) or Row(where, line.record, path / name)


def _has_questions(path: Path) -> bool:
    """Whether the first line that can be read looks like a question."""
    return tables.first(path).keys() >= FIELDS
