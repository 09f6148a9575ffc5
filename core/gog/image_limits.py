"""Which image sizes a model's image processor accepts.

The processor refuses a thin image with a bare ValueError, and takes an array 1, 3 or 4 pixels high for one whose first
axis holds the channels. Either ends a stage hours in, without a file name. These limits need no torch, so that datasets
are checked against them before a run starts and servers refuse a single image. A test holds them to the real processor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ImageLimits:
    """Sizes that one image processor accepts."""

    min_side: int
    """Smallest width and height, in pixels."""
    max_aspect: float
    """Largest ratio of the longer side to the shorter."""

    def fault(self, width: int, height: int) -> str:
        """Why an image of this size (pixels) is refused; empty if it is accepted."""
        short, long = sorted((width, height))
        if short < self.min_side:
            return f"{width} x {height} pixels: the model needs at least {self.min_side} on each side"
        if long > self.max_aspect * short:
            return f"{width} x {height} pixels: the model accepts an aspect ratio of at most {self.max_aspect:g}"
        return ""


QWEN_VL = ImageLimits(min_side=5, max_aspect=200)
"""transformers `smart_resize` (aspect ratio) and `infer_channel_dimension_format` (1, 3 or 4 rows are taken for channels)."""
BY_MODEL_TYPE = {"qwen2_5_vl": QWEN_VL, "qwen3_vl": QWEN_VL, "qwen3_vl_moe": QWEN_VL}
"""Limits by `model_type` of config.json. A model family adds a row."""


def of_model(folder: Path) -> ImageLimits:
    """The limits of a model folder in Hugging Face form; those of Qwen-VL if its type is unknown or unreadable."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        config = None
    kind = config.get("model_type") if isinstance(config, dict) else None
    return BY_MODEL_TYPE.get(str(kind), QWEN_VL)
