"""Writes the embedded world as an ordinary dataset folder (see `gog.dataset`).

The same specification gives the same bytes. The folder appears whole or not at all: it is made beside its place and
renamed. `world.json` holds the specification, and a folder of the same specification is kept. Of the scene that an image
was drawn from, only what an annotator would mark (the evidence) is written.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from pathlib import Path

from gog import dataset, images, languages, spec
from gog.errors import UserError, unwritable
from gog_recipes.world import difficulty, drawing, entities, scenes

VERSION = 1
"""Increased when the same specification gives another world."""
STAMP = "world.json"
"""File that holds the specification."""
SPLITS: tuple[entities.Split, ...] = ("train", "test")


def write(folder: Path, world: spec.WorldSpec) -> None:
    """Makes the dataset folder of a world. An equal world in the folder is kept, another one is replaced.

    Raises:
        UserError: the folder holds something other than a world, or cannot be written.
    """
    if _is_made(folder, world):
        return
    _check_replaceable(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", suffix=".tmp", dir=folder.parent) as scratch:
            made = Path(scratch) / "made"
            fill(made, world)
            _move(made, folder, world, aside=Path(scratch) / "replaced")
    except OSError as error:
        raise unwritable(error, folder, remedy="name another folder") from error


def fill(folder: Path, world: spec.WorldSpec) -> None:
    """Writes a world's files to a new folder, the stamp last."""
    known, level = entities.build(world.seed), difficulty.LEVELS[world.difficulty]
    folder.mkdir()
    for split, count in zip(SPLITS, (world.train, world.test), strict=True):
        _write_split(folder, known, split, count, world.seed, level)
    _write_index(folder, known)
    dataset.write_lines(folder / "corpus.jsonl", _pages(known, level))
    (folder / STAMP).write_text(json.dumps(_stamp(world)) + "\n", encoding="utf-8")


def evidence(case: scenes.Case) -> dataset.Evidence:
    """What an annotator would mark. A text question refers to nothing in its image."""
    marks: dict[str, object] = {"attribute": case.attribute, "entity": case.entity, "things": len(case.scene.things)}
    if case.kind == "chain":
        marks["relation"] = entities.MAKER
    if case.language != languages.DEFAULT:
        marks["language"] = case.language
    if case.kind != "text":
        marks |= {"expression": case.scene.wanted.entity.expression, "region": drawing.box(case.scene.wanted)}
    return dataset.Evidence.model_validate({"kind": case.kind, **marks})


def _pages(known: entities.Entities, level: difficulty.Difficulty) -> list[dataset.Document]:
    pages = [
        dataset.Document(title=name, text=entities.page(known, name, distractors=level.distractors))
        for name in entities.NAMES
    ]
    if level.distractors:
        for first, second in known.makers.items():
            pages.append(dataset.Document(title=f"{second} {first}", text=entities.joint_page(known, first, second)))
    return pages


def _write_split(
    folder: Path,
    known: entities.Entities,
    split: entities.Split,
    count: int,
    seed: int,
    level: difficulty.Difficulty,
) -> None:
    rng = random.Random(f"{seed}/{split}")
    written = images.ImageFolder(folder / "images")
    lines = []
    for number in range(count):
        case = scenes.draw_case(rng, known, split, level=level)
        image = written.add(drawing.scene(case.scene.things, case.scene.background))
        lines.append(
            dataset.Question(
                id=f"{split}-{number:05d}",
                image=f"images/{image}.png",
                question=case.question,
                answers=case.answers,
                evidence=evidence(case),
            )
        )
    dataset.write_lines(folder / f"{split}.jsonl", list(lines))


def _write_index(folder: Path, known: entities.Entities) -> None:
    written = images.ImageFolder(folder / "index" / "images")
    lines = [
        dataset.IndexedImage(image=f"index/images/{written.add(drawing.reference(entity))}.png", title=name)
        for entity, name in known.names.items()
    ]
    dataset.write_lines(folder / "index" / "images.jsonl", list(lines))


def _stamp(world: spec.WorldSpec) -> dict[str, object]:
    return {"version": VERSION, **world.model_dump(mode="json")}


def _is_made(folder: Path, world: spec.WorldSpec) -> bool:
    try:
        return bool(json.loads((folder / STAMP).read_text(encoding="utf-8")) == _stamp(world))
    except (OSError, ValueError):
        return False


def _check_replaceable(folder: Path) -> None:
    if folder.exists() and not (folder / STAMP).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("holds something other than a world", where=str(folder), remedy="name an empty or new folder")


def _move(made: Path, folder: Path, world: spec.WorldSpec, *, aside: Path) -> None:
    """Renames the new folder into place. If another process was faster with the same world, its folder is kept."""
    try:
        if folder.exists():
            os.replace(folder, aside)
        os.replace(made, folder)
    except OSError:
        if not _is_made(folder, world):
            raise
        shutil.rmtree(made)
