"""Boxes are clamped, checked, de-duplicated, and cut from the image's own pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import make_image

from gog import regions, tool_api

WIDTH, HEIGHT = 40, 30
numbers = st.one_of(st.floats(), st.floats(-100, 100), st.integers(-50, 90).map(float))
boxes = st.tuples(numbers, numbers, numbers, numbers)


def select(found: list[tool_api.Detection], **limits: float) -> list[tool_api.Detection]:
    given = {"limit": 5, "min_side": 4, "max_aspect": 100, "max_overlap": 0.7, **limits}
    return regions.select(found, WIDTH, HEIGHT, **given)


def detections(*found: tuple[regions.Box, float]) -> list[tool_api.Detection]:
    """Detections that were not validated, so that they can hold any number."""
    return [tool_api.Detection.model_construct(box=box, score=score, label="") for box, score in found]


@given(st.lists(st.tuples(boxes, st.floats()), max_size=8))
def test_every_candidate_lies_inside_the_image(found: list[tuple[regions.Box, float]]) -> None:
    for item in select(detections(*found)):
        x0, y0, x1, y1 = item.box
        assert 0 <= x0 <= x1 - 4 and x1 <= WIDTH
        assert 0 <= y0 <= y1 - 4 and y1 <= HEIGHT
        crop = regions.crop(make_image(), item.box, by=2, side=None)
        assert crop.width >= 4 and crop.height >= 4


@given(st.lists(st.tuples(boxes, st.floats()), max_size=8))
def test_candidates_are_few_distinct_and_best_first(found: list[tuple[regions.Box, float]]) -> None:
    chosen = select(detections(*found))
    scores = [item.score for item in chosen]
    assert len(chosen) <= 5
    assert scores == sorted(scores, reverse=True) and all(map(math.isfinite, scores))
    assert all(regions.overlap(a.box, b.box) <= 0.7 for index, a in enumerate(chosen) for b in chosen[index + 1 :])


def test_of_two_overlapping_boxes_the_better_one_is_kept() -> None:
    kept = select(detections(((1, 1, 20, 20), 0.6), ((2, 1, 20, 20), 0.9), ((25, 1, 35, 20), 0.3)))
    assert [item.score for item in kept] == [0.9, 0.3]


@pytest.mark.parametrize(
    "box",
    [
        (20, 20, 10, 10),
        (5, 5, 5, 20),
        (5, 5, 8, 20),
        (50, 5, 70, 20),
        (-20, 5, -5, 20),
        (math.nan, 5, 20, 20),
    ],
    ids=["inside out", "no width", "too thin", "right of the image", "left of it", "not a number"],
)
def test_an_unusable_box_is_never_offered(box: regions.Box) -> None:
    assert select(detections((box, 0.9))) == []


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_box_that_cannot_be_ranked_is_never_offered(score: float) -> None:
    assert [item.score for item in select(detections(((1, 1, 20, 20), score), ((1, 1, 20, 20), 0.2)))] == [0.2]


def test_a_sliver_is_never_offered() -> None:
    assert select(detections(((0, 0, 40, 4), 0.9)), max_aspect=9) == []
    assert len(select(detections(((0, 0, 40, 5), 0.9)), max_aspect=9)) == 1


@given(boxes)
def test_clamping_twice_changes_nothing_more(box: regions.Box) -> None:
    if not any(map(math.isnan, box)):
        once = regions.clamp(box, WIDTH, HEIGHT)
        assert regions.clamp(once, WIDTH, HEIGHT) == once
        assert all(0 <= side <= limit for side, limit in zip(once, (WIDTH, HEIGHT) * 2))


def test_a_crop_is_made_of_the_images_own_pixels() -> None:
    image = make_image()
    crop = regions.crop(image, (10.4, 5, 20, 12.5), by=2, side=None)
    assert np.array_equal(crop.pixels, image.pixels[3:15, 8:22])


def test_padding_ends_at_the_images_edge() -> None:
    image = make_image()
    assert np.array_equal(regions.crop(image, (0, 0, 10, 10), by=5, side=None).pixels, image.pixels[:15, :15])
    assert np.array_equal(regions.crop(image, (30, 20, 40, 30), by=5, side=None).pixels, image.pixels[15:, 25:])


def test_a_crop_owns_its_pixels() -> None:
    image = make_image()
    crop = regions.crop(image, (5, 5, 15, 15), by=0, side=None)
    crop.pixels[:] = 0
    assert image.pixels[5:15, 5:15].any()


def test_a_square_crop_has_the_side_asked_for_and_keeps_the_things_proportions() -> None:
    image = make_image()
    crop = regions.crop(image, (10, 10, 20, 14), by=3, side=16)
    assert (crop.width, crop.height) == (16, 16)
    assert regions.square((10, 10, 20, 14), 3, WIDTH, HEIGHT) == (7, 4, 23, 20)
    assert np.array_equal(crop.pixels, image.pixels[4:20, 7:23])


def test_overlap_is_intersection_over_union() -> None:
    assert regions.overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert regions.overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert regions.overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert regions.overlap((5, 5, 5, 5), (5, 5, 5, 5)) == 0


def test_the_box_that_holds_a_thing_is_the_one_that_overlaps_it_most() -> None:
    offered = [(0, 0, 10, 10), (8, 8, 20, 20), (30, 0, 40, 10)]
    assert regions.containing(offered, (9, 9, 18, 18)) == 1
    assert regions.containing(offered, (21, 21, 25, 25)) is None
    assert regions.containing([], (0, 0, 5, 5)) is None
