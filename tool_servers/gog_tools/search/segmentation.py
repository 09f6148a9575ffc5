"""Finds the things in an image by their pixels: connected regions in front of a background.

The background is the median colour of the image's border; a thing is a connected region of other pixels, and a region
whose box lies inside another's belongs to it (the dot of a ring). The tools of the embedded world know nothing else
about an image. Flat images such as the world's segment exactly; a photograph becomes one large thing or confetti.

Boxes are (x0, y0, x1, y1) in pixels, ends exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Box = tuple[int, int, int, int]

CONTRAST = 16
"""A pixel belongs to a thing when one of its channels differs from the background by more."""
MAX_CELLS = 256
"""Regions are found on a grid of 2 x 2 pixels, coarser where a side would have more cells than this."""
MAX_THINGS = 64
"""Most boxes of one image; the largest are kept."""


@dataclass(frozen=True, eq=False)
class Segments:
    """An image and the things in it."""

    pixels: np.ndarray
    """The image, [h, w, 3] uint8."""
    contrast: np.ndarray
    """Largest difference of a channel from the background, [h, w] uint8."""
    mask: np.ndarray
    """Whether a pixel belongs to a thing, [h, w] bool."""
    boxes: list[Box]
    """Boxes of the things in reading order, at most MAX_THINGS."""

    def area(self, box: Box) -> int:
        """Pixels of the thing in a box."""
        x0, y0, x1, y1 = box
        return int(np.count_nonzero(self.mask[y0:y1, x0:x1]))

    def most_salient(self) -> Box | None:
        """The largest thing, or None."""
        return max(self.boxes, key=self.area, default=None)


def segment(pixels: np.ndarray) -> Segments:
    """Finds the things in an image.

    Args:
        pixels: [h, w, 3] uint8, h and w at least 1

    Returns:
        The segments; no boxes for an image of one colour.
    """
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border, axis=0).astype(np.uint8)
    differences = np.maximum(pixels, background) - np.minimum(pixels, background)
    # Three slices, because numpy's maximum along an axis of three takes ten times as long.
    contrast = np.maximum(np.maximum(differences[..., 0], differences[..., 1]), differences[..., 2])
    mask = contrast > CONTRAST
    cell = max(2, -(-max(mask.shape) // MAX_CELLS))
    boxes = [tight(mask, _scaled(box, cell)) for box in _outermost(_regions(_coarse(mask, cell)))]
    return Segments(pixels, contrast, mask, sorted(boxes, key=lambda box: (box[1], box[0])))


def _coarse(mask: np.ndarray, cell: int) -> np.ndarray:
    """Whether any pixel of each cell x cell square is set."""
    rows = np.logical_or.reduceat(mask, np.arange(0, mask.shape[0], cell), axis=0)
    return np.asarray(np.logical_or.reduceat(rows, np.arange(0, mask.shape[1], cell), axis=1))


def _regions(cells: np.ndarray) -> list[Box]:
    """Boxes, in cells, of regions connected by side or corner: runs of a row are joined with those of the row above."""
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
    """Joins two regions (other < 0: there is only one). Returns the number of the result."""
    if other < 0 or region == other:
        return region
    parents[other] = region
    kept, gone = boxes[region], boxes[other]
    boxes[region] = [min(kept[0], gone[0]), min(kept[1], gone[1]), max(kept[2], gone[2]), max(kept[3], gone[3])]
    return region


def _outermost(boxes: list[Box]) -> list[Box]:
    """The largest MAX_THINGS boxes, without those that lie inside another."""
    boxes = sorted(boxes, key=lambda box: (box[0] - box[2]) * (box[3] - box[1]))[: 4 * MAX_THINGS]
    kept: list[Box] = []
    for box in boxes:
        if not any(o[0] <= box[0] and o[1] <= box[1] and o[2] >= box[2] and o[3] >= box[3] for o in kept):
            kept.append(box)
    return kept[:MAX_THINGS]


def _scaled(box: Box, cell: int) -> Box:
    return box[0] * cell, box[1] * cell, box[2] * cell, box[3] * cell


def tight(mask: np.ndarray, box: Box) -> Box:
    """The smallest box around the set pixels of mask [h, w] inside a box, which must hold one."""
    x0, y0, x1, y1 = box
    part = mask[y0:y1, x0:x1]
    columns, rows = np.nonzero(part.any(0))[0], np.nonzero(part.any(1))[0]
    return x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1
