"""LiveVQA in both of its layouts; their questions are the same kind, their fields are not.

The repository (fumingyang2004/LIVEVQA) has `{News,Paper,Video}/benchmark.json`, two questions an item:

[{"id": 1, "img_path": "images/1.jpg", "source": "…", "time": "…", "level1_qa": {"question": "…", "question_type": "person",
  "options": ["A. Ada", "B. Bob"], "Ground_Truth": "A", "Ground_Truth_List": ["Ada"], "img_path": "images/1.jpg"},
  "level2_qa": {…}}]

The tables of the Hugging Face dataset (ONE-Lab/LiveVQA-new, CC BY-NC 4.0) have one question a row, with its image
embedded or named in one of the zips; unpack these and name their folder with `--images`:

{"id": "…", "question": "…", "options": ["A. …"], "ground_truth": "A", "img_path": "news/1.jpg", "level": 1}

Questions are asked openly: the options are not shown, and the accepted answers are the text of the right option and
`Ground_Truth_List`. An item's folder (News, Paper, Video) is its split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gog.dataset.foreign import files, values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import Row
from gog.errors import UserError

LEVELS = ("level1_qa", "level2_qa")
_GOLD = ("Ground_Truth", "ground_truth", "answer")
_LISTS = ("Ground_Truth_List", "ground_truth_list")
_IMAGES = ("image", "images", "img_path", "image_path")
_OPTION = re.compile(r"^\s*([A-Z])\s*[.):]\s*(.*)$", re.DOTALL)


class Reader(TableReader):
    """Reads LiveVQA. Implements gog.dataset.formats.Reader."""

    def has(self, record: Mapping[str, Any]) -> bool:
        flat = "question" in record and "options" in record and any(name in record for name in _GOLD[:2])
        return any(level in record for level in LEVELS) or flat

    def split_of(self, file: Path) -> str:
        return file.parent.name.lower() if file.stem == "benchmark" and file.parent.name else files.split_of(file)

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row | UserError]:
        levels = [level for level in LEVELS if not values.is_missing(record.get(level))]
        if not levels:
            yield self._question(record, record, record.get("id"), source, record.get("level"))
            return
        for level in levels:
            try:
                identity = f"{source.split}-{record.get('id', source.number)}-{level.removesuffix('_qa')}"
                yield self._question({**record, **record[level]}, record[level], identity, source, level[5])
            except values.Fault as fault:
                yield UserError(f"{level}.{fault.what}", where=source.where, remedy=fault.remedy)

    def _question(
        self, record: Mapping[str, Any], asked: Mapping[str, Any], identity: Any, source: Source, level: Any
    ) -> Row:
        field = next((name for name in _IMAGES if not values.is_missing(record.get(name))), "img_path")
        return source.row(
            id=identity,
            question=values.text(asked, "question"),
            answers=_answers(asked),
            image=(field, record.get(field)),
            kind=asked.get("question_type"),
            source="livevqa",
            level=None if level is None else str(level),
            time=record.get("time"),
        )


def _answers(asked: Mapping[str, Any]) -> tuple[str, ...]:
    """The accepted answers: the text of the right option, and those of the list."""
    options = {found[1]: found[2].strip() for each in asked.get("options") or () if (found := _OPTION.match(str(each)))}
    gold = values.get(asked, *_GOLD)
    if isinstance(gold, str) and options:
        letter = (_OPTION.match(gold + ".") or [gold, gold.strip()])[1]
        if len(gold.strip()) == 1 and letter not in options:
            raise values.Fault(_GOLD[0], f"{gold!r} is none of the options {', '.join(options)}")
        gold = options.get(letter, gold) if len(gold.strip()) == 1 else gold
    return values.answers(gold, values.get(asked, *_LISTS), field=_GOLD[0])
