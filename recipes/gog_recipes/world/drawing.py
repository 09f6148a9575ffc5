"""Draws entities: scenes for questions, reference images for the image search's index.

Everything is drawn with Pillow at whole pixels. A reference image shows the entity three times as large on another
background, so a search must compare forms and colours; equal arrays never occur.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

from gog import images
from gog_recipes.world import entities

SIDE = 112
"""Width and height of a scene, in pixels."""
CELL = 28
"""Side of a cell of the grid on which things are placed, in pixels; also the side of a crop."""
GRID = SIDE // CELL
"""Cells along a scene's side."""
RADII = (8, 9, 10)
"""Radii of things, in pixels."""
BACKGROUNDS = (20, 40, 60, 80)
"""Grey levels of scenes."""
REFERENCE_SIDE = 96
"""Width and height of a reference image, in pixels."""
REFERENCE_SCALE = 3
"""Size of an entity in a reference image, relative to a scene."""
REFERENCE_BACKGROUND = 128
"""Grey level of reference images; no scene has it."""

SIDES = ("left", "right", "top", "bottom")
"""Sides that may be hidden."""
DOT_ROOM = 4
"""Pixels from a thing's centre that are never hidden: its dot."""
SMALLEST_HIDDEN = DOT_ROOM + 3
"""Radius from which a side may be hidden."""
UNUSED = 111
"""A grey level that nothing in a scene has."""
COVER_CONTRAST = 12
"""By which a cover is lighter than the background: too little for the detector to take it for a thing."""

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 are exclusive."""


@dataclass(frozen=True)
class Thing:
    """An entity at a place in a scene."""

    entity: entities.Entity
    """What is drawn."""
    x: int
    """Column of its centre, in pixels."""
    y: int
    """Row of its centre, in pixels."""
    radius: int
    """Half of its width, in pixels."""
    side: str = ""
    """One of SIDES, which something hides; empty: none."""
    hidden: int = 0
    """Pixels that are hidden, from that side."""


def box(thing: Thing) -> Box:
    """The bounding box of a thing's visible pixels."""
    if thing.side:
        return _visible(thing)
    half_height = 4 if thing.entity.form == "bar" else thing.radius
    x, y, radius = thing.x, thing.y, thing.radius
    return x - radius, y - half_height, x + radius + 1, y + half_height + 1


def scene(things: Sequence[Thing], background: int) -> images.Image:
    """A SIDE x SIDE image of things on a grey background."""
    image = PILImage.new("RGB", (SIDE, SIDE), (background,) * 3)
    canvas = ImageDraw.Draw(image)
    for thing in things:
        _Pen(canvas, thing.x, thing.y, 1).draw(thing.entity, thing.radius)
        if thing.side:
            canvas.rectangle(_cover(thing), fill=(background + COVER_CONTRAST,) * 3)
    return images.Image(np.asarray(image))


def reference(entity: entities.Entity) -> images.Image:
    """The image of an entity in the image search's index."""
    image = PILImage.new("RGB", (REFERENCE_SIDE, REFERENCE_SIDE), (REFERENCE_BACKGROUND,) * 3)
    centre = REFERENCE_SIDE // 2 // REFERENCE_SCALE
    _Pen(ImageDraw.Draw(image), centre, centre, REFERENCE_SCALE).draw(entity, RADII[1])
    return images.Image(np.asarray(image))


def _cover(thing: Thing) -> Box:
    """Corners, both inclusive, of what hides a side of a thing: it begins beyond the thing, as a neighbour would."""
    x, y, radius, beyond = thing.x, thing.y, thing.radius, 2
    near, far = radius - thing.hidden, radius + beyond
    return {
        "left": (x - far, y - far, x - near - 1, y + far),
        "right": (x + near + 1, y - far, x + far, y + far),
        "top": (x - far, y - far, x + far, y - near - 1),
        "bottom": (x - far, y + near + 1, x + far, y + far),
    }[thing.side]


def _visible(thing: Thing) -> Box:
    """The bounding box of the pixels of a thing that nothing hides; of a form such as a triangle it is not a cut box."""
    shown = (scene([dataclasses.replace(thing, side="")], UNUSED).pixels != UNUSED).any(-1)
    x0, y0, x1, y1 = _cover(thing)
    shown[max(0, y0) : y1 + 1, max(0, x0) : x1 + 1] = False
    rows, columns = np.nonzero(shown)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@dataclass(frozen=True)
class _Pen:
    """Draws an entity around a centre."""

    canvas: ImageDraw.ImageDraw
    """What to draw on."""
    x: int
    """Column of the centre, in pixels of a scene."""
    y: int
    """Row of the centre, in pixels of a scene."""
    scale: int
    """Pixels of the canvas per pixel of a scene."""

    def draw(self, entity: entities.Entity, radius: int) -> None:
        self._body(entity.form, radius, entities.COLOURS[entity.colour])
        lower = 3 if entity.form == "triangle" else 0  # where a triangle is wide enough for its dot
        self.canvas.rectangle(self._around(2, 2, lower), fill=entities.DOTS[entity.dot])

    def _body(self, form: str, radius: int, colour: entities.Colour) -> None:
        around = self._around(radius, radius)
        if form == "circle":
            self.canvas.ellipse(around, fill=colour)
        elif form == "ring":
            self.canvas.ellipse(around, outline=colour, width=min(4, radius // 2) * self.scale)
        elif form == "triangle":
            left, top, right, bottom = around
            self.canvas.polygon([((left + right) // 2, top), (left, bottom), (right, bottom)], fill=colour)
        else:
            for half_width, half_height in _RECTANGLES[form]:
                self.canvas.rectangle(self._around(half_width or radius, half_height or radius), fill=colour)

    def _around(self, half_width: int, half_height: int, lower: int = 0) -> Box:
        """Corners of a rectangle around the centre, both inclusive, as Pillow expects them."""
        x, y = self.x, self.y + lower
        left, top, right, bottom = x - half_width, y - half_height, x + half_width + 1, y + half_height + 1
        return left * self.scale, top * self.scale, right * self.scale - 1, bottom * self.scale - 1


_RECTANGLES: dict[str, tuple[tuple[int, int], ...]] = {"square": ((0, 0),), "bar": ((0, 4),), "cross": ((3, 0), (0, 3))}
"""Half width and half height of the rectangles that make up a form, in pixels of a scene; 0: the radius."""
