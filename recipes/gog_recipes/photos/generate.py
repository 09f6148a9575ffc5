"""Writes the photo world as an ordinary dataset folder (see `gog.dataset`).

The same arguments give the same questions and pictures. Held-out questions are about cut-outs, and have photographs
behind them, that no training question has.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from gog import dataset, images
from gog.dataset import Document, Evidence, IndexedImage, Question
from gog.errors import UserError
from gog.images import Image
from gog_recipes.photos import cutouts, scenes
from gog_recipes.photos.cutouts import Cutout
from gog_recipes.photos.scenes import Scene, Thing

STAMP = "photos.json"
"""File that says what a folder was made of."""
HELD_OUT = 3
"""Every third cut-out of a class is held out."""
ALIKE, OTHERS = (2, 3), (0, 2)
"""Fewest and most things of the class that is asked about, and of other classes."""
KINDS = ("name", "fact", "fact", "text")
"""Kinds of questions; `fact` twice as often as each of the others."""
MARGIN = 0.06 * scenes.WIDTH
"""Pixels by which the leftmost thing of a class lies further to the left than the next one."""
MOST_IN_VAIN = 200
"""Pictures in a row that allow no question, after which a world is given up."""
MORE = "give each class six cut-outs or more, with names in other languages"
"""What a user can do about too few."""
REFERENCE = 224
"""Longest side of an indexed image, in pixels."""
POSITIONS: Mapping[str, tuple[int, int]] = {
    "leftmost": (0, -1),
    "rightmost": (0, 1),
    "highest": (1, -1),
    "lowest": (1, 1),
}
"""Axis (0: x) and direction, by word."""


@dataclass(frozen=True)
class Sizes:
    """What a world is made of."""

    train: int
    """Training questions."""
    test: int
    """Held-out questions."""
    seed: int = 0
    """Of everything."""


def write(folder: Path, known: Sequence[Cutout], behind: scenes.Photographs, sizes: Sizes) -> None:
    """Makes the dataset folder; it appears whole or not at all.

    Args:
        folder: new or empty.
        known: cut-outs.
        behind: photographs that are put behind them.
        sizes: how much is made.

    Raises:
        UserError: the folder holds something, or the cut-outs are too few.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("is not empty", where=str(folder), remedy="name a new folder")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shares = zip(("train", "test"), (sizes.train, sizes.test), split(known), behind.split(), strict=True)
    for name, count, own, paths in shares:
        _write_split(partial, name, count, random.Random(f"{sizes.seed}/{name}"), own, behind, paths)
    _write_index(partial, known)
    dataset.write_lines(partial / dataset.CORPUS, [page(each) for each in known])
    about = {"cutouts": len(known), "photographs": len(behind.paths), **sizes.__dict__}
    (partial / STAMP).write_text(json.dumps(about) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)


def split(known: Sequence[Cutout]) -> tuple[list[Cutout], list[Cutout]]:
    """Cut-outs of training questions, and those of held-out ones: a third of every class.

    Raises:
        UserError: either would have none.
    """
    train, held = [], []
    for kind in cutouts.CLASSES:
        own = [each for each in known if each.kind == kind]
        held += own[::HELD_OUT]
        train += [each for number, each in enumerate(own) if number % HELD_OUT]
    if not train or not held:
        raise UserError("too few cut-outs", where=", ".join(each.name for each in known), remedy=MORE)
    return train, held


def page(cutout: Cutout) -> Document:
    """What text search knows of a cut-out: its class, and its names."""
    names = " ".join(f"{language}: {word}" for language, word in sorted(cutout.names.items()))
    return Document(title=cutout.name, text=f"{cutout.name}, a {cutout.kind}. {names}")


def reference(cutout: Cutout) -> Image:
    """The indexed image of a cut-out: on white."""
    picture = cutout.picture()
    picture.thumbnail((REFERENCE, REFERENCE))
    white = PILImage.new("RGB", picture.size, "white")
    white.paste(picture, (0, 0), picture)
    return Image(np.asarray(white))


def _write_index(folder: Path, known: Sequence[Cutout]) -> None:
    """The images, for back ends that read the dataset and for `gog index build`."""
    written = images.ImageFolder(folder / "index" / "images")
    names = {each.name: written.add(reference(each)) for each in known}
    lines = [IndexedImage(image=f"index/images/{image}.png", title=name) for name, image in names.items()]
    dataset.write_lines(folder / dataset.INDEX, lines)
    rows = [
        json.dumps({"file_name": f"{image}.png", "title": name}, ensure_ascii=False) for name, image in names.items()
    ]
    (folder / "index" / "images" / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _write_split(
    folder: Path,
    name: str,
    count: int,
    rng: random.Random,
    own: Sequence[Cutout],
    behind: scenes.Photographs,
    paths: Sequence[Path],
) -> None:
    written = images.ImageFolder(folder / "images")
    lines: list[Question] = []
    in_vain = 0
    while len(lines) < count:
        scene = draw(rng, own, behind.crop(rng, rng.choice(paths)))
        asked = ask(rng, scene)
        if asked is None:
            in_vain += 1
            if in_vain > MOST_IN_VAIN:
                raise UserError(
                    f"{MOST_IN_VAIN} pictures in a row allow no question of the split {name}",
                    where=str(folder),
                    remedy=MORE,
                )
            continue
        in_vain = 0
        question, answers, evidence = asked
        image = f"images/{written.add(scene.image)}.png"
        made = Question(
            id=f"{name}-{len(lines):05d}", image=image, question=question, answers=answers, evidence=evidence
        )
        lines.append(made)
    dataset.write_lines(folder / f"{name}.jsonl", lines)


def draw(rng: random.Random, own: Sequence[Cutout], behind: PILImage.Image) -> Scene:
    """A picture with several things of one class, which are the first ones, and some of others."""
    kind = rng.choice(sorted({each.kind for each in own}))
    alike = [each for each in own if each.kind == kind]
    others = [each for each in own if each.kind != kind]
    chosen = rng.sample(alike, min(len(alike), rng.randint(*ALIKE)))
    chosen += rng.sample(others, min(len(others), rng.randint(*OTHERS)))
    return scenes.compose(rng, behind, chosen)


def ask(rng: random.Random, scene: Scene) -> tuple[str, tuple[str, ...], Evidence] | None:
    """A question about a picture, its answers, and what an annotator would mark. None if it allows none."""
    kind = rng.choice(KINDS)
    position, (axis, direction) = rng.choice(sorted(POSITIONS.items()))
    wanted = outermost(scene.things, axis, direction)
    if wanted is None:
        return None
    cutout = wanted.cutout
    marks: dict[str, object] = {"entity": cutout.name, "things": len(scene.things)}
    where = {"expression": cutout.kind, "region": tuple(map(float, wanted.box))}
    if kind == "name":
        evidence = Evidence.model_validate({"kind": kind, **where, **marks})
        return f"What is the name of the {position} {cutout.kind}?", (cutout.name,), evidence
    foreign = sorted(name for name, word in cutout.names.items() if word.lower() != cutout.name.lower())
    if not foreign:
        return None
    language = rng.choice(foreign)
    marks["attribute"] = f"{language}:"
    subject = cutout.name if kind == "text" else f"the {position} {cutout.kind}"
    evidence = Evidence.model_validate({"kind": kind, **({} if kind == "text" else where), **marks})
    return f"What is {subject} called in {language}?", (cutout.names[language],), evidence


def outermost(things: Sequence[Thing], axis: int, direction: int) -> Thing | None:
    """The thing furthest in a direction among those of the first one's class; None where two are nearly as far."""
    if not things:
        return None
    alike = [each for each in things if each.cutout.kind == things[0].cutout.kind]
    if len(alike) < min(ALIKE):
        return None
    far = sorted(alike, key=lambda each: -direction * (each.box[axis] + each.box[axis + 2]) / 2)
    first, second = ((each.box[axis] + each.box[axis + 2]) / 2 for each in far[:2])
    return far[0] if abs(first - second) >= MARGIN else None
