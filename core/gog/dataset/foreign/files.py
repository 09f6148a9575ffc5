"""The files of a dataset, and the split that each belongs to by its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from gog.dataset.foreign import tables

DEEP = 3
"""Levels of folders below the one that the user names in which files are looked for."""
MOST = 10_000
"""Files that are looked at, at most."""
_KNOWN = re.compile(r"(?:^|[^a-z])(train|test|validation|valid|val|dev)(?:[^a-z]|$)")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_NAMES = {"valid": "validation", "val": "validation", "dev": "validation"}
MARKS = ("dataset_info.json", "dataset_dict.json", "state.json", "metadata.jsonl")
"""Files that `datasets` writes or reads beside the rows."""
_BESIDE = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "index.json")
"""Files that describe a dataset and hold none of its rows."""


def split_of(path: Path) -> str:
    """The split that a file holds: a usual one in its own name, or as its folder's; else the file's name.

    >>> [split_of(Path(name)) for name in ("fvqa_train.parquet", "data/test-00000-of-00002.parquet", "end2end.parquet")]
    ['train', 'test', 'end2end']
    """
    if found := _KNOWN.search(path.stem.lower()) or _KNOWN.fullmatch(path.parent.name.lower()):
        return _NAMES.get(found[1], found[1])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", _SHARD.sub("", path.stem)).strip("-.")[:63] or "data"


def by_split(path: Path, split_of: Callable[[Path], str], has: Callable[[Path], bool]) -> dict[str, list[Path]]:
    """The files of a dataset by split; those of a folder whose first record the format has, in the order of their names.

    Args:
        path: a file, or a folder that is searched DEEP levels down.
        split_of: the split of a file.
        has: whether a file is of the format.
    """
    found: dict[str, list[Path]] = {}
    for file in [path] if path.is_file() else sorted(_below(path, DEEP)):
        if path.is_file() or (file.name not in _BESIDE and has(file)):
            found.setdefault(split_of(file), []).append(file)
    return found


def _below(folder: Path, levels: int) -> list[Path]:
    if not folder.is_dir():
        return []
    found: list[Path] = []
    for each in sorted(folder.iterdir()):
        if each.name.startswith(".") or len(found) >= MOST:
            continue
        if each.is_dir() and levels:
            found += _below(each, levels - 1)
        elif each.suffix in tables.SUFFIXES and each.is_file():
            found.append(each)
    return found[:MOST]


def is_hugging_face(path: Path) -> bool:
    """Whether a folder was written by `datasets` or is a snapshot of a dataset repository."""
    if not path.is_dir():
        return False
    marked = any(next(path.glob(f"{below}{mark}"), None) for mark in MARKS for below in ("", "*/"))
    return marked or any(path.glob("data/*.parquet"))
