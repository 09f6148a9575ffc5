"""The files of a dataset, and the split that each belongs to by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from gog import mounts
from gog.dataset.foreign import tables

DEEP = 3
"""Levels of folders below the one that the user names in which files are looked for."""
MOST = 10_000
"""Files that are looked at, at most."""
_KNOWN = re.compile(r"(?:^|[^a-z])(train|test|validation|valid|val|dev)(?:[^a-z]|$)")
_SHARD = re.compile(r"-\d{5}-of-(\d{5})$")
_NAMES = {"valid": "validation", "val": "validation", "dev": "validation"}
MARKS = ("dataset_info.json", "dataset_dict.json", "state.json", "metadata.jsonl")
"""Files that `datasets` writes or reads beside the rows."""
_BESIDE = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "index.json", mounts.RECORD)
"""Files that describe a dataset and hold none of its rows."""


def split_of(path: Path) -> str:
    """The split that a file holds: a usual one in its own name, or as its folder's; else the file's name.

    >>> [split_of(Path(name)) for name in ("fvqa_train.parquet", "data/test-00000-of-00002.parquet", "end2end.parquet")]
    ['train', 'test', 'end2end']
    """
    if found := _KNOWN.search(path.stem.lower()) or _KNOWN.fullmatch(path.parent.name.lower()):
        return _NAMES.get(found[1], found[1])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", _SHARD.sub("", path.stem)).strip("-.")[:63] or "data"


def of(path: Path) -> list[Path]:
    """The files of a dataset that may hold rows, in the order of their names.

    Args:
        path: a file, or a folder that is searched DEEP levels down.
    """
    return [path] if path.is_file() else sorted(each for each in _below(path, DEEP) if each.name not in _BESIDE)


def by_split(
    path: Path, split_of: Callable[[Path], str], has: Callable[[Path], bool], may_ignore: Callable[[Path], bool]
) -> dict[str, list[Path]]:
    """The files of a dataset by split, in the order of their names.

    Those of a folder are the files of the format, and files that may be damaged ones of it, which the reader refuses:
    no record can be read, or the first is of another shape although the ending or the split is that of a file of the
    format. Without these, a shard that was cut off would be missing without a word.

    Args:
        path: a file, or a folder that is searched DEEP levels down.
        split_of: the split of a file.
        has: whether a file is of the format.
        may_ignore: whether a file of another shape belongs to the dataset and holds no rows.
    """
    every = of(path)
    own = [file for file in every if has(file)]
    endings, splits = {file.suffix for file in own}, {split_of(file) for file in own}
    found: dict[str, list[Path]] = {}
    for file in every:
        is_like = (file.suffix in endings or split_of(file) in splits) and not may_ignore(file)
        if path.is_file() or has(file) or is_like or tables.unreadable(file) is not None:
            found.setdefault(split_of(file), []).append(file)
    return found


def absent(shards: Sequence[Path]) -> list[Path]:
    """Shards that the names of others promise, as train-00001-of-00002.parquet promises two, and that are not there.

    Args:
        shards: the files of a split, some of which may be no shards.
    """
    sharded = {  # of all shards of a table, of which there may be thousands, once
        (file.parent, file.stem[: shard.start()], shard[1], file.suffix)
        for file in shards
        if (shard := _SHARD.search(file.stem)) is not None
    }
    every = (
        folder / f"{stem}-{number:05}-of-{count}{suffix}"
        for folder, stem, count, suffix in sorted(sharded)
        for number in range(int(count))
    )
    return [file for file in every if not file.exists()]


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
