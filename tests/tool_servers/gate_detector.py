"""The world's detector for tests: the expression "wait" makes it wait at a pipe, "break" makes it raise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gog import tool_api
from gog.images import Image
from gog_tools.grounding.world_detector import WorldDetector


class GateDetector(WorldDetector):
    def detect(self, images: Sequence[Image], expressions: Sequence[str]) -> list[list[tool_api.Detection]]:
        if "break" in expressions:
            raise RuntimeError("out of memory")
        if "wait" in expressions:
            Path(os.environ["GATE"]).read_bytes()
        return super().detect(images, expressions)
