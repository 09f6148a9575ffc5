"""Back ends of the grounding server: what one must do, and how it is named on the command line."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from gog import tool_api
from gog.errors import UserError
from gog.images import Image

BACKENDS = {"world": "gog_tools.grounding.world_detector:WorldDetector"}


class Detector(Protocol):
    """Called from one thread."""

    def detect(self, images: Sequence[Image], expressions: Sequence[str]) -> list[list[tool_api.Detection]]:
        """For each image and its expression all boxes found, in pixels, best score first."""
        ...


def load(name: str) -> Detector:
    """A Detector by its name in BACKENDS or as `module:factory`. Raises UserError."""
    module, _, factory = BACKENDS.get(name, name).partition(":")
    try:
        return cast(Detector, getattr(importlib.import_module(module), factory)())
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"no back end {name!r}: {error}", where="--backend", remedy=f"{', '.join(BACKENDS)}, or module:factory"
        ) from None
