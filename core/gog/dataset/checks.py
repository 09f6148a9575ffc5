"""Everything in a dataset that a run reads, checked before the run starts: every line, image and box.

A faulty image would otherwise end a stage, or cost its question, hours in. Several errors are reported at once, so that
a dataset is corrected in one pass.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gog import image_limits, images
from gog.dataset import boxes, formats, jsonl, paths
from gog.dataset.records import CORPUS, INDEX, Document, IndexedImage
from gog.errors import UserError
from gog.regions import Box

MOST = 20
"""Errors that are reported at once."""
BATCH = 64
"""Images that are decoded before the errors among them are counted."""


@dataclass(frozen=True)
class _Shown:
    """An image and the line that refers to it."""

    where: str
    """File and line."""
    name: str
    """The image's name in that line."""
    image: Path | bytes
    """The encoded image."""
    region: Box | None = None
    """Annotated box, in pixels."""
    limits: image_limits.ImageLimits | None = None
    """What the model accepts; None for an image that the model never sees."""


def check(
    path: Path,
    splits: Iterable[str],
    *,
    format: str | None = None,
    limits: image_limits.ImageLimits = image_limits.QWEN_VL,
) -> None:
    """Checks a dataset.

    Args:
        path: a dataset folder, or a file or folder in another format.
        splits: the splits that will be read.
        format: name of the format; None: recognised by content.
        limits: image sizes that the model accepts.

    Raises:
        UserError: at most MOST errors, one a line, each with file, line and cause.
    """
    found = list(itertools.islice(errors(path, splits, format=format, limits=limits), MOST + 1))
    if len(found) == 1:
        raise found[0]
    if found:
        more = [f"only the first {MOST} errors are shown"] if len(found) > MOST else []
        raise UserError("\n".join([*(error.sentence() for error in found[:MOST]), *more]))


def errors(
    path: Path, splits: Iterable[str], *, format: str | None, limits: image_limits.ImageLimits
) -> Iterator[UserError]:
    """The errors of a dataset in the order of its files and lines, by batches of images. Raises UserError where no
    reader fits."""
    reader, wanted = formats.find(path, format), tuple(splits)
    missing = formats.missing_splits(reader, path, wanted)
    for split in wanted:
        if split not in missing:
            yield from _image_errors(_shown(row, limits) for row in formats.read(reader, path, split))
        elif split == missing[0]:  # one error for all of them
            yield formats.no_splits(reader, path, missing)
    if (path / INDEX).is_file():
        yield from _image_errors(_indexed(path))
    if (path / CORPUS).is_file():
        yield from (line for line in jsonl.scan(path / CORPUS, Document) if isinstance(line, UserError))


def _shown(row: formats.Row | UserError, limits: image_limits.ImageLimits) -> _Shown | UserError:
    if isinstance(row, UserError):
        return row
    question = row.question
    return _Shown(row.where, question.image, row.image, question.evidence.region, limits)


def _indexed(folder: Path) -> Iterator[_Shown | UserError]:
    for line in jsonl.scan(folder / INDEX, IndexedImage):
        if isinstance(line, UserError):
            yield line
            continue
        where, name = f"{folder / INDEX}:{line.number}", line.record.image
        yield paths.error(folder, name, where) or _Shown(where, name, folder / name)


def _image_errors(items: Iterable[_Shown | UserError]) -> Iterator[UserError]:
    """Errors among items, and of their images; each file is decoded once."""
    sizes: dict[Path, tuple[int, int] | UserError] = {}
    remaining = iter(items)
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
        while batch := list(itertools.islice(remaining, BATCH)):
            shown = [item for item in batch if isinstance(item, _Shown)]
            fresh = {item.image for item in shown if isinstance(item.image, Path)} - sizes.keys()
            sizes.update(zip(fresh, pool.map(_size, fresh), strict=True))
            for item in batch:
                if isinstance(item, UserError):
                    yield item
                    continue
                size = sizes[item.image] if isinstance(item.image, Path) else _size(item.image)
                yield from _errors_of(item, size)


def _size(image: Path | bytes) -> tuple[int, int] | UserError:
    """Width and height in pixels, of an image that can be decoded to its end."""
    try:
        decoded = images.read(image) if isinstance(image, Path) else images.decode(image)
    except UserError as error:
        return error
    return decoded.width, decoded.height


def _errors_of(item: _Shown, size: tuple[int, int] | UserError) -> Sequence[UserError]:
    about = f"image {item.name!r}"
    if isinstance(size, UserError):
        return [UserError(f"{about}: {size.what}", where=item.where, remedy=size.remedy)]
    made = []
    if item.limits is not None and (fault := item.limits.fault(*size)):
        made.append(UserError(f"{about}: {fault}", where=item.where, remedy="crop, pad or remove it"))
    if item.region is not None and (fault := boxes.fault(item.region, *size)):
        made.append(UserError(f"evidence.region: {fault}", where=item.where, remedy=jsonl.REMEDY))
    return made
