"""What a back end of the grounding server must do. How to write and name one: `gog_tools.serving.backends`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from gog import tool_api
from gog.images import Image


@runtime_checkable
class Detector(Protocol):
    """Finds what an expression refers to."""

    def detect(self, images: Sequence[Image], expressions: Sequence[str]) -> Sequence[Sequence[tool_api.Detection]]:
        """Finds boxes in each image.

        Args:
            images: 1 to `max_batch` images, RGB, of any size that decodes
            expressions: one per image, at most 1,000 characters, as the policy wrote it; may be empty

        Returns:
            For each image every box found, in pixels of that image, best score first; scores are finite, boxes may
            reach beyond the image. No box is an empty sequence, not an error. Clamping, de-duplication and cropping
            are the agent's (gog.regions).

        Raises:
            UserError: for an image that the detector cannot use.
            Unavailable: when a retry may succeed.
        """
        ...
