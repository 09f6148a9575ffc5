"""The limits of gog.image_limits are those of the real image processor."""

from __future__ import annotations

import numpy as np
import pytest
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from gog import image_limits
from gog_recipes.world import TINY


def processed(width: int, height: int) -> bool:
    """Whether the processor reads an image of this size, with its columns along the width."""
    pixels = np.zeros((height, width, 3), np.uint8)
    try:
        out = Qwen2VLImageProcessorPil.from_pretrained(TINY, local_files_only=True)([pixels], return_tensors="np")
    except ValueError:
        return False
    _, high, wide = out["image_grid_thw"][0]
    return bool((high > wide) == (height > width))


@pytest.mark.parametrize(
    ("width", "height"), [(5, 5), (1000, 5), (5, 1000), (1400, 7), (7, 1400), (112, 112), (1600, 8), (900, 10)]
)
def test_sizes_within_the_limits_are_processed(width: int, height: int) -> None:
    assert image_limits.QWEN_VL.fault(width, height) == ""
    assert processed(width, height)


@pytest.mark.parametrize(("width", "height"), [(1600, 7), (7, 1600), (1005, 5), (300, 1), (300, 3), (300, 4)])
def test_sizes_that_the_processor_refuses_or_misreads_are_outside_the_limits(width: int, height: int) -> None:
    assert not processed(width, height)
    assert image_limits.QWEN_VL.fault(width, height)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((1600, 7), "1600 x 7 pixels: the model accepts an aspect ratio of at most 200"),
        ((300, 3), "300 x 3 pixels: the model needs at least 5 on each side"),
        ((2, 100), "2 x 100 pixels: the model needs at least 5 on each side"),
    ],
)
def test_the_reason_names_size_and_limit(size: tuple[int, int], reason: str) -> None:
    assert image_limits.QWEN_VL.fault(*size) == reason
