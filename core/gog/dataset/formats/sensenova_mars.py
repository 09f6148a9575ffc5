"""SenseNova-MARS: a meta file that names JSON lines and the root of their images.

meta.json   {"mmsearch": {"root": "data/mmsearch", "annotation": "data/mmsearch/data.jsonl", "length": 171}}
data.jsonl  {"prompt": [{"role": "user", "content": "<image>\nWho is it?"}], "image": "images/1.jpg",
             "reward_model": {"ground_truth": ["Ada"]}, "image_search_title_list": ["…"], "image_search_summary": "…"}

Each name of the meta file is a split. Its precomputed image search is not used: gog searches live. `root` and
`annotation` are looked up as they are and below the meta file's folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gog.dataset.foreign import embedded, messages, tables, values
from gog.dataset.foreign.reader import Source, TableReader
from gog.dataset.formats import LeftOut, Row
from gog.errors import UnreadableFile, UserError


class Reader(TableReader):
    """Reads a meta file, or a folder that holds one. Implements gog.dataset.formats.Reader."""

    def detect(self, path: Path) -> bool:
        return bool(self._entries(path))

    def splits(self, path: Path) -> tuple[str, ...]:
        return tuple(sorted(self._entries(path)))

    def rows(self, path: Path, split: str) -> Iterator[Row | LeftOut | UserError]:
        entry = self._entries(path).get(split)
        if entry is None:
            return
        meta, fields = entry
        annotation = _located(meta, str(fields.get("annotation", "")))
        root = _located(meta, str(fields.get("root", "")))
        count = 0
        own = [self.images] if self.images is not None else []
        places = embedded.Places([*own, root, annotation.parent], by_user=self.images is not None)
        for found in tables.read(annotation):
            if isinstance(found, UserError):
                yield found
                continue
            count += 1
            yield from self._of_record(found.fields, Source(annotation, split, found.number, found.where, places))
        if isinstance(fields.get("length"), int) and fields["length"] != count:
            yield UnreadableFile(
                f"length: {fields['length']}, but {annotation} has {count} rows",
                where=f"{meta}: {split}",
                remedy="is the file complete, and of this version?",
            )

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row]:
        reward = record.get("reward_model") or {}
        images = values.get(record, "images", "image")
        yield source.row(
            id=values.get(record, "data_id", "id"),
            question=messages.first_user(record.get("prompt"), "prompt"),
            answers=values.answers(values.get(reward, "ground_truth"), field="reward_model.ground_truth"),
            image=("image", messages.images(record.get("prompt")) if images is None else images),
            kind=record.get("category"),
            source=source.split,
        )

    def _entries(self, path: Path) -> dict[str, tuple[Path, Mapping[str, Any]]]:
        """What the meta files at the path name: by split, the meta file and the entry."""
        found: dict[str, tuple[Path, Mapping[str, Any]]] = {}
        for file in [path] if path.is_file() else sorted(path.glob("*.json")):
            for record in tables.read(file) if file.suffix == ".json" else ():
                if isinstance(record, tables.Record) and {"key", "annotation", "root"} <= record.fields.keys():
                    found[str(record.fields["key"])] = (file, record.fields)
                else:
                    break
        return found


def _located(meta: Path, name: str) -> Path:
    """A path of the meta file: beside it, else as it is."""
    beside = meta.parent / name.lstrip("/")
    return beside if beside.exists() else Path(name)
