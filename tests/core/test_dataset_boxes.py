"""Annotated boxes against their images: the likely convention of a wrong box is named."""

from __future__ import annotations

import pytest

from gog.dataset import boxes

RELATIVE = "looks relative to the image (0 to 1)"
SIZED = "looks like x, y, width, height"
SWAPPED = "is empty or has its corners swapped"
SCALED = "exceeds the image (640 x 480), perhaps on a scale of 0 to 1000"
OUTSIDE = "exceeds the image (640 x 480):"


@pytest.mark.parametrize("box", [(0, 0, 640, 480), (10.5, 20, 11.75, 21), (639, 479, 640, 480)])
def test_a_box_inside_its_image_fits(box) -> None:
    assert boxes.fault(box, 640, 480) == ""


@pytest.mark.parametrize(
    ("box", "cause"),
    [
        ((0.1, 0.2, 0.5, 0.9), RELATIVE),
        ((0, 0, 1, 1), RELATIVE),
        ((300, 200, 50, 60), SIZED),
        ((300, 20, 50, 60), SIZED),
        ((600, 400, 500, 300), SWAPPED),
        ((600, 400, -5, 20), SWAPPED),
        ((10, 10, 10, 20), SIZED),
        ((630, 10, 630, 20), SWAPPED),
        ((100, 500, 900, 950), SCALED),
        ((100, 100, 641, 200), SCALED),
        ((-1, 10, 20, 20), OUTSIDE),
        ((100, 100, 1500, 1200), OUTSIDE),
    ],
)
def test_a_box_that_does_not_fit_is_named_with_its_likely_cause(box, cause) -> None:
    fault = boxes.fault(box, 640, 480)
    assert cause in fault and "boxes are x0, y0, x1, y1 in pixels" in fault
    assert fault.startswith(f"[{box[0]:g}, {box[1]:g}, ")
