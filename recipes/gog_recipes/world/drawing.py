"""Things as pixels: scenes for questions, reference images for the search engine's index.

Everything is drawn with Pillow at whole pixels. A reference image shows the same thing three times as large on
another background, so that whoever compares a crop with the index compares forms and colours, not equal arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

from gog import images
from gog_recipes.world import entities

SIDE = 112
"""Pixels of a scene's side."""
CELL = 28
"""Pixels of one cell of the grid that things stand on; also the side of a crop."""
GRID = SIDE // CELL
RADII = (8, 9, 10)
BACKGROUNDS = (20, 40, 60, 80)
"""Grey levels of scenes."""
REFERENCE_SIDE = 96
REFERENCE_SCALE = 3
REFERENCE_BACKGROUND = 128

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """An entity at a place: centre and radius in pixels of the scene."""

    entity: entities.Entity
    x: int
    y: int
    radius: int


def box(thing: Thing) -> Box:
    """x0, y0, x1, y1 of its pixels; x1 and y1 are the first ones outside."""
    half_height = 4 if thing.entity.form == "bar" else thing.radius
    x, y, radius = thing.x, thing.y, thing.radius
    return x - radius, y - half_height, x + radius + 1, y + half_height + 1


def scene(things: Sequence[Thing], background: int) -> images.Image:
    """A SIDE x SIDE image of things on a grey background."""
    image = PILImage.new("RGB", (SIDE, SIDE), (background,) * 3)
    for thing in things:
        _Pen(ImageDraw.Draw(image), thing.x, thing.y, 1).draw(thing.entity, thing.radius)
    return images.Image(np.asarray(image))


def reference(entity: entities.Entity) -> images.Image:
    """The image under which the search engine knows an entity."""
    image = PILImage.new("RGB", (REFERENCE_SIDE, REFERENCE_SIDE), (REFERENCE_BACKGROUND,) * 3)
    centre = REFERENCE_SIDE // 2 // REFERENCE_SCALE
    _Pen(ImageDraw.Draw(image), centre, centre, REFERENCE_SCALE).draw(entity, RADII[1])
    return images.Image(np.asarray(image))


@dataclass(frozen=True)
class _Pen:
    """Draws around a centre; lengths are given in scene pixels and multiplied by scale."""

    canvas: ImageDraw.ImageDraw
    x: int
    y: int
    scale: int

    def draw(self, entity: entities.Entity, radius: int) -> None:
        self._body(entity.form, radius, entities.COLOURS[entity.colour])
        lower = 3 if entity.form == "triangle" else 0  # where a triangle is wide enough for its dot
        self.canvas.rectangle(self._around(2, 2, lower), fill=entities.DOTS[entity.dot])

    def _body(self, form: str, radius: int, colour: entities.Colour) -> None:
        around = self._around(radius, radius)
        if form == "circle":
            self.canvas.ellipse(around, fill=colour)
        elif form == "ring":
            self.canvas.ellipse(around, outline=colour, width=4 * self.scale)
        elif form == "triangle":
            left, top, right, bottom = around
            self.canvas.polygon([((left + right) // 2, top), (left, bottom), (right, bottom)], fill=colour)
        else:
            for half_width, half_height in _RECTANGLES[form]:
                self.canvas.rectangle(self._around(half_width or radius, half_height or radius), fill=colour)

    def _around(self, half_width: int, half_height: int, lower: int = 0) -> Box:
        """Corners of a rectangle about the centre; both belong to it, as Pillow wants them."""
        x, y = self.x, self.y + lower
        left, top, right, bottom = x - half_width, y - half_height, x + half_width + 1, y + half_height + 1
        return left * self.scale, top * self.scale, right * self.scale - 1, bottom * self.scale - 1


_RECTANGLES: dict[str, tuple[tuple[int, int], ...]] = {"square": ((0, 0),), "bar": ((0, 4),), "cross": ((3, 0), (0, 3))}
"""Half width and half height of the rectangles a form is made of; 0 stands for the radius."""
