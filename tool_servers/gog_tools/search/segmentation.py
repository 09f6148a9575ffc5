"""What the embedded world's tools see in pixels: things in front of a background, and what each looks like.

The background is the colour that most of the image's border has; a thing is a connected region of other pixels, and
whatever lies inside another's box belongs to it (the dot of a ring). That is all these tools know: nobody tells them
what was drawn. Good for flat images such as the world's; a photograph comes out as one large thing or as confetti.

Boxes are (x0, y0, x1, y1) in pixels, ends exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]

CONTRAST = 16
"""A pixel belongs to a thing when one of its channels differs from the background by more."""
EDGE = 0.4
"""A resized thing ends where this share of its usual contrast is reached: what is fainter is blur."""
MAX_CELLS = 256
"""Regions are found on a grid of 2 x 2 pixels, coarser where a side would have more cells than this."""
MAX_THINGS = 64
NEUTRAL = 128
"""Grey that takes the background's place in thumbnails."""
THUMBNAIL = 14


@dataclass(frozen=True, eq=False)
class View:
    """An image taken apart.

    pixels [h, w, 3] uint8; contrast [h, w] uint8, the largest difference of a channel from the background;
    mask [h, w], where a thing is; boxes of things in reading order.
    """

    pixels: np.ndarray
    contrast: np.ndarray
    mask: np.ndarray
    boxes: list[Box]

    def area(self, box: Box) -> int:
        """Pixels of the thing in a box."""
        x0, y0, x1, y1 = box
        return int(np.count_nonzero(self.mask[y0:y1, x0:x1]))

    def most_salient(self) -> Box | None:
        """The largest thing, if there is any."""
        return max(self.boxes, key=self.area, default=None)


def look(pixels: np.ndarray) -> View:
    """Takes an image [h, w, 3] uint8 apart."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border, axis=0).astype(np.uint8)
    differences = np.maximum(pixels, background) - np.minimum(pixels, background)
    # three slices: numpy's own maximum along an axis of three takes ten times as long
    contrast = np.maximum(np.maximum(differences[..., 0], differences[..., 1]), differences[..., 2])
    mask = contrast > CONTRAST
    cell = max(2, -(-max(mask.shape) // MAX_CELLS))
    boxes = [_tight(mask, _scaled(box, cell)) for box in _outermost(_regions(_coarse(mask, cell)))]
    return View(pixels, contrast, mask, sorted(boxes, key=lambda box: (box[1], box[0])))


def thumbnail(view: View, box: Box) -> np.ndarray:
    """A thing's looks, whatever its size and background: [THUMBNAIL * THUMBNAIL * 3] float32, 0 to 255."""
    x0, y0, x1, y1 = _sharp(view, box)
    cut = view.pixels[y0:y1, x0:x1].copy()
    cut[~view.mask[y0:y1, x0:x1]] = NEUTRAL
    return thumbnail_of_all(cut)


def thumbnail_of_all(pixels: np.ndarray) -> np.ndarray:
    """The looks of an image that is one thing from edge to edge; form and range as those of a thing."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    if height != width:
        left, top = (side - width) // 2, (side - height) // 2
        pixels = np.pad(
            pixels, ((top, side - height - top), (left, side - width - left), (0, 0)), constant_values=NEUTRAL
        )
    image = Image.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32).ravel()


def _sharp(view: View, box: Box) -> Box:
    """The box without the blur that resizing leaves around a thing."""
    x0, y0, x1, y1 = box
    contrast = view.contrast[y0:y1, x0:x1]
    usual = np.median(contrast[view.mask[y0:y1, x0:x1]])
    return _tight(view.contrast > EDGE * usual, box)


def _coarse(mask: np.ndarray, cell: int) -> np.ndarray:
    """Whether any pixel of each cell x cell square is set."""
    rows = np.logical_or.reduceat(mask, np.arange(0, mask.shape[0], cell), axis=0)
    return np.asarray(np.logical_or.reduceat(rows, np.arange(0, mask.shape[1], cell), axis=1))


def _regions(cells: np.ndarray) -> list[Box]:
    """Boxes, in cells, of regions that touch by side or corner: runs of each row joined with those of the row above."""
    edges = np.diff(np.pad(cells, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    boxes: list[list[int]] = []
    above: list[tuple[int, int, int]] = []
    current: list[tuple[int, int, int]] = []
    parents: list[int] = []
    last = -1
    for row, start, end in zip(rows.tolist(), starts.tolist(), ends.tolist()):
        if row != last:
            above, current, last = current if row == last + 1 else [], [], row
        region = -1
        for other_start, other_end, other in above:
            if other_start <= end and start <= other_end:
                region = _join(parents, boxes, _root(parents, other), region)
        if region < 0:
            region = len(parents)
            parents.append(region)
            boxes.append([start, row, end, row + 1])
        box = boxes[region]
        box[0], box[2], box[3] = min(box[0], start), max(box[2], end), row + 1
        current.append((start, end, region))
    return [(b[0], b[1], b[2], b[3]) for index, b in enumerate(boxes) if parents[index] == index]


def _root(parents: list[int], region: int) -> int:
    while parents[region] != region:
        parents[region] = region = parents[parents[region]]
    return region


def _join(parents: list[int], boxes: list[list[int]], region: int, other: int) -> int:
    """One region of two (other < 0: of one). Returns its number."""
    if other < 0 or region == other:
        return region
    parents[other] = region
    kept, gone = boxes[region], boxes[other]
    boxes[region] = [min(kept[0], gone[0]), min(kept[1], gone[1]), max(kept[2], gone[2]), max(kept[3], gone[3])]
    return region


def _outermost(boxes: list[Box]) -> list[Box]:
    """The largest MAX_THINGS boxes without those inside another."""
    boxes = sorted(boxes, key=lambda box: (box[0] - box[2]) * (box[3] - box[1]))[: 4 * MAX_THINGS]
    kept: list[Box] = []
    for box in boxes:
        if not any(o[0] <= box[0] and o[1] <= box[1] and o[2] >= box[2] and o[3] >= box[3] for o in kept):
            kept.append(box)
    return kept[:MAX_THINGS]


def _scaled(box: Box, cell: int) -> Box:
    return box[0] * cell, box[1] * cell, box[2] * cell, box[3] * cell


def _tight(mask: np.ndarray, box: Box) -> Box:
    """The smallest box around what is set inside a box; something must be."""
    x0, y0, x1, y1 = box
    part = mask[y0:y1, x0:x1]
    columns, rows = np.nonzero(part.any(0))[0], np.nonzero(part.any(1))[0]
    return x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1
