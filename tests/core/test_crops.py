"""Crops of candidates, cut once and kept within bounds."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gog import crops
from gog.images import Image

IMAGE = Image(np.arange(100 * 100 * 3, dtype=np.uint8).reshape(100, 100, 3))
BOXES = [(float(x), 0.0, float(x + 10), 10.0) for x in range(0, 80, 10)]


def test_the_same_box_of_the_same_image_is_cut_once() -> None:
    async def scenario() -> None:
        cutter = crops.Crops(0, None)
        first, second = await cutter.cut(IMAGE, BOXES[:2])
        assert (await cutter.cut(Image(IMAGE.pixels.copy()), BOXES[1::-1])) == (second, first)

    asyncio.run(scenario())


def test_one_box_may_be_asked_for_twice() -> None:
    first, second = asyncio.run(crops.Crops(0, None).cut(IMAGE, [BOXES[0], BOXES[0]]))
    assert first.hash == second.hash


@pytest.mark.parametrize(("ranks", "kept"), [("1", 4), ("2", 2), ("8", 0)])
def test_crops_are_kept_within_the_memory_that_the_processes_of_a_machine_share(
    ranks: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crops, "MAX_KEPT_BYTES", 4 * 2 * 300)  # four crops of 10 x 10, each with its PNG

    async def scenario() -> int:
        cutter = crops.Crops(0, None, {"LOCAL_WORLD_SIZE": ranks})
        made = await cutter.cut(IMAGE, BOXES)
        assert len(made) == len(BOXES), "all are returned, whatever is kept"
        again = 0
        for box, crop in reversed(list(zip(BOXES, made, strict=True))):
            again += (await cutter.cut(IMAGE, [box]))[0] is crop
        return again

    assert asyncio.run(scenario()) == kept
