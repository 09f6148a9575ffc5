"""InfoSeek's JSON lines (open-vision-language/infoseek); its images are those of OVEN, unpacked into a folder.

infoseek_train.jsonl         {"data_id": "infoseek_train_00000000", "image_id": "oven_01963180", "question": "Who designed
                              this building?", "answer": ["Ada"], "answer_eval": ["Ada", "A. Lovelace"],
                              "data_split": "train"}
infoseek_train_withkb.jsonl  {"data_id": "infoseek_train_00000000", "entity_id": "Q178185", "entity_text": "Heat engine"}

The second file maps questions to entities of the knowledge base. Where it lies beside the first, or in the folder that is
read, its `entity_text` becomes the mark `entity` of the question with that `data_id`.

Numerical questions carry {"wikidata": 12, "range": [11, 13]} in `answer_eval`; its value is accepted. Name the folder of
OVEN's images with `--images`; they are found in it and one level below (`01/oven_01963180.jpg`), whatever their ending.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gog.dataset.foreign import tables, values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import LeftOut, Row
from gog.errors import UnreadableFile, UserError

MAPPING = "_withkb"
"""What the name of a file has, before its ending, that maps its questions to entities."""


class Reader(TableReader):
    """Reads InfoSeek's files. Implements gog.dataset.formats.Reader."""

    def has(self, record: Mapping[str, Any]) -> bool:
        return {"data_id", "image_id", "question", "answer_eval"} <= record.keys()

    def is_beside(self, record: Mapping[str, Any]) -> bool:
        return {"data_id", "entity_id"} <= record.keys() and "question" not in record

    def rows(self, path: Path, split: str) -> Iterator[Row | LeftOut | UserError]:
        if path.is_file() and self._may_ignore(path):
            remedy = f"name {path.name.replace(MAPPING, '')}; this file is read beside it"
            yield UnreadableFile("maps questions to entities and holds none", where=str(path), remedy=remedy)
            return
        self._root, self._entities = path, dict[Path, _Entities]()
        yield from super().rows(path, split)

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row | UserError]:
        gold, entity = values.get(record, "answer", "answer_eval"), record.get("entity_text")
        try:
            entity = entity or self._entities_of(source.file).of(record.get("data_id"))
        except UnreadableFile as error:
            yield error
        yield source.row(
            id=record.get("data_id"),
            question=values.text(record, "question"),
            answers=values.answers(gold, record.get("answer_eval")),
            image=source.places.named(values.text(record, "image_id"), "image_id"),
            kind=record.get("data_split"),
            source="infoseek",
            entity=entity,
        )

    def _entities_of(self, file: Path) -> _Entities:
        """The entities of a file's questions: beside it, else in the folder that is read."""
        if file not in self._entities:
            name = f"{file.stem}{MAPPING}{file.suffix}"
            below = sorted(self._root.rglob(name)) if self._root.is_dir() else []
            self._entities[file] = _Entities(
                next((each for each in (file.with_name(name), *below) if each.is_file()), None)
            )
        return self._entities[file]


class _Entities:
    """The entities of questions by `data_id`.

    The published files have the same order, so the mapping is read along with the questions; what is held is only what
    was passed over. There are a million questions of some thousand entities, so each text is held once.
    """

    def __init__(self, file: Path | None) -> None:
        self._rows = iter(()) if file is None else tables.read(file)
        self._held: dict[Any, Any] = {}
        self._texts: dict[Any, Any] = {}

    def of(self, identity: Any) -> Any:
        """The entity of a question; None if the mapping has none. Raises UnreadableFile, once, for a faulty mapping."""
        while identity not in self._held and (row := next(self._rows, None)) is not None:
            if isinstance(row, UserError):
                self._rows = iter(())
                raise UnreadableFile(row.what, where=row.where, remedy=row.remedy)
            text = row.fields.get("entity_text")
            self._held[row.fields.get("data_id")] = self._texts.setdefault(text, text)
        return self._held.pop(identity, None)
