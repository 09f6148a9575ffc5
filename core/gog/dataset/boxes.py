"""Whether an annotated box fits its image, and if not, which convention it was probably written in.

Other tools write boxes as x-y-width-height, as fractions of the image or on a scale of 0 to 1000. Read as pixel
corners, such boxes would silently falsify the choice accuracy. A box that is valid under several conventions is not
detected.
"""

from __future__ import annotations

from gog.regions import Box

CONVENTION = "boxes are x0, y0, x1, y1 in pixels"


def fault(box: Box, width: int, height: int) -> str:
    """Why a box (finite, in pixels) does not fit an image of this size; empty if it does.

    The text names the likely cause where one is recognisable.
    """
    x0, y0, x1, y1 = box
    shown = f"[{', '.join(f'{side:g}' for side in box)}]"
    if all(0 <= side <= 1 for side in box):
        return f"{shown} looks relative to the image (0 to 1): {CONVENTION}"
    if x1 <= x0 or y1 <= y0:
        if x1 > 0 and y1 > 0 and x0 + x1 <= width and y0 + y1 <= height:
            return f"{shown} looks like x, y, width, height: {CONVENTION}"
        return f"{shown} is empty or has its corners swapped: {CONVENTION}"
    if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
        return ""
    if min(box) >= 0 and max(box) <= 1000:
        return f"{shown} exceeds the image ({width} x {height}), perhaps on a scale of 0 to 1000: {CONVENTION}"
    return f"{shown} exceeds the image ({width} x {height}): {CONVENTION}"
