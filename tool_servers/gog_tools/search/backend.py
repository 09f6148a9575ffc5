"""What a back end of the two search servers must do. How to write and name one: `gog_tools.serving.backends`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from gog import tool_api
from gog.images import Image


@dataclass(frozen=True)
class Found:
    """The answer to one query."""

    hits: Sequence[tool_api.SearchHit]
    """Best first, with finite scores; empty when nothing was found, which is not an error."""
    cost_usd: float | None = None
    """What this answer cost, in US dollars; None for a search that is free."""
    credit_usd: float | None = None
    """What is left on the account, in US dollars; None when that is not known."""
    vendor: str = ""
    """Who was paid, in one word of letters, digits and dashes; empty for a search of our own."""
    calls: int | None = None
    """Requests that were made of vendors; None for a search of our own."""
    pages: tuple[int, int] | None = None
    """Pages that were read, and pages that could not be read; None for a search that reads none."""


@runtime_checkable
class ImageSearch(Protocol):
    """Finds pages by an image."""

    def search(self, images: Sequence[Image], tops: Sequence[int]) -> Sequence[Found]:
        """Searches for each image.

        Args:
            images: 1 to `max_batch` images, RGB, of any size that decodes
            tops: for each image the most hits wanted, 1 to 50; further hits are dropped

        Returns:
            The answer for each image, in order.

        Raises:
            UserError: for an image that the search cannot use.
            Unavailable: when a retry may succeed. RateLimited, AuthFailed, NoCredit, Refused: what a vendor answered.
        """
        ...


@runtime_checkable
class TextSearch(Protocol):
    """Finds pages by words."""

    def search(self, queries: Sequence[str], tops: Sequence[int]) -> Sequence[Found]:
        """Searches for each query.

        Args:
            queries: 1 to `max_batch` queries, at most 4,000 characters each, as the policy wrote them; may be empty
            tops: for each query the most hits wanted, 1 to 50; further hits are dropped

        Returns:
            The answer for each query, in order. `text` of a hit is the page's summary.

        Raises:
            UserError: for a query that the search cannot use.
            Unavailable: when a retry may succeed. RateLimited, AuthFailed, NoCredit, Refused: what a vendor answered.
        """
        ...
