"""Calls of a back end: in batches off the event loop, with its failures as a client sees them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from gog import tool_api
from gog.errors import UserError
from gog.images import Image
from gog_tools.serving import errors
from gog_tools.serving.batching import Item, MicroBatcher, Result


class ShowsImage(Protocol):
    """A request with an image."""

    image: str
    """PNG, JPEG or WebP bytes in base64."""


Showing = TypeVar("Showing", bound=ShowsImage)


def with_images(
    requests: Sequence[Showing],
    work: Callable[[Sequence[Showing], Sequence[Image]], Sequence[Result | Exception]],
) -> list[Result | Exception]:
    """The results of a batch of requests; one whose image cannot be read fails alone.

    Args:
        requests: of one batch
        work: answers those whose images can be read, given with these
    """
    results: list[Result | Exception] = [RuntimeError("not answered") for _ in requests]
    readable: dict[int, Image] = {}
    for index, request in enumerate(requests):
        try:
            readable[index] = tool_api.decode_image(request.image)
        except UserError as error:
            results[index] = error
    if readable:
        found = work([requests[index] for index in readable], list(readable.values()))
        for index, each in zip(readable, found, strict=True):
            results[index] = each
    return results


def batcher(
    backend: object,
    work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
    *,
    max_size: int = 16,
    max_wait: float = 0.0,
) -> MicroBatcher[Item, Result]:
    """Batches for the calls of a back end, which may set `max_batch` and `threads` (module docstring).

    Args:
        backend: whose attributes count
        work: answers a batch, as `MicroBatcher` calls it
        max_size: most items in a batch where the back end does not set it
        max_wait: seconds for which an idle batcher waits for a second item
    """
    size, threads = getattr(backend, "max_batch", max_size), getattr(backend, "threads", 1)
    return MicroBatcher(work, max_size=size, max_wait=max_wait, threads=threads)


async def answer(batches: MicroBatcher[Item, Result], item: Item) -> Result:
    """The result of one item.

    Raises:
        UserError: for a fault of the request.
        errors.RequestError: for a back end that is unavailable (503) or failed (500, logged with its traceback).
    """
    try:
        return await batches.submit(item)
    except (UserError, errors.RequestError):
        raise
    except Exception as error:
        logging.getLogger(__name__).exception("the back end failed")
        raise errors.of_backend(error) from error


def finite(*values: float) -> None:
    """Raises ValueError unless all values of a result are finite: JSON has no NaN, and none of them is an answer."""
    if not all(map(math.isfinite, values)):
        raise ValueError(f"a result that is not finite: {values}")
