"""Requests and answers between the agent and the tool servers, in one place for both sides.

Grounding uses KServe's v1 protocol (`POST /v1/models/grounding:predict`), judge and policy the OpenAI chat protocol, the
two searches plain JSON. Images travel as base64 of PNG bytes, never as a path or an address, which a server would have
to fetch.
"""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import BaseModel, ConfigDict, FailFast, Field

from gog import images

GROUNDING_PATH = "/v1/models/grounding:predict"
IMAGE_SEARCH_PATH = "/v1/search/image"
TEXT_SEARCH_PATH = "/v1/search/text"
OCR_PATH = "/v1/ocr"
CHAT_PATH = "/v1/chat/completions"
COST_HEADER, CREDIT_HEADER = "x-gog-cost-usd", "x-gog-credit-usd"
"""Headers of an answer that is paid for, in US dollars: what it cost, and what is left on the account."""
VENDOR_HEADER, CALLS_HEADER = "x-gog-vendor", "x-gog-calls"
"""Headers of an answer for which a vendor was called: the vendor's name, in one word, and the number of calls."""
PAGES_READ_HEADER, PAGES_FAILED_HEADER = "x-gog-pages-read", "x-gog-pages-failed"
"""Headers of a text search that reads pages: how many it has read, and how many it could not read."""
SERVER_HEADER = "x-gog-server"
"""Header of every answer of a server of gog: its version and its back end, `gog/0.1.0 brave`."""
FAILURE_HEADER = "x-gog-failure"
"""Header of an error whose cause is a vendor: one of FAILURES. It takes precedence over the status."""
FAILURES = ("auth", "no_credit", "rate_limited", "unavailable", "unreachable", "refused")
"""Values of FAILURE_HEADER: the vendor refuses the key, has no credit left, limits the rate, does not answer, cannot be
reached from the server, or refuses the request. Statuses that fit them: 502, 402, 429, 503, 503, 400."""

MAX_EXPRESSION, MAX_QUERY = 1_000, 4_000
"""Characters of an expression and of a query that a tool server accepts."""

MAX_HIT_TITLE, MAX_HIT_TEXT = 1_000, 30_000
"""Characters of a search result's title and text that a client reads. Source: MMSearch-R1 clips pages to 30,000."""

SLICE = 1 << 20
"""Characters of base64 that are decoded at once; a multiple of 4."""
Base64 = Annotated[str, Field(max_length=64_000_000)]


class Wire(BaseModel):
    """Strict in both directions: a body with other fields, or with a number that is not finite, is malformed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class GroundingInstance(Wire):
    """One image and what to find in it."""

    image: Base64
    """PNG bytes in base64."""
    expression: str = Field(max_length=MAX_EXPRESSION)
    """Words for the things to find."""


class GroundingRequest(Wire):
    """Body of a grounding request."""

    instances: list[GroundingInstance] = Field(min_length=1, max_length=64)
    """Each is answered by one prediction, in the same order."""


class Detection(Wire):
    """A thing that the detector found."""

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the image that was sent."""
    score: float
    """The detector's confidence; higher is better."""
    label: str = ""
    """The detector's name for it; empty where it has none."""


class GroundingPrediction(Wire):
    """What was found in one image."""

    detections: Annotated[list[Detection], FailFast()]
    """Best score first."""


class GroundingResponse(Wire):
    """Body of a grounding answer."""

    predictions: Annotated[list[GroundingPrediction], FailFast()]
    """One for each instance, in the same order."""


class ImageSearchRequest(Wire):
    """Body of a request to search by image."""

    image: Base64
    """PNG bytes in base64."""
    top: int = Field(5, ge=1, le=50)
    """Results wanted at most."""


class TextSearchRequest(Wire):
    """Body of a request to search by text."""

    query: str = Field(max_length=MAX_QUERY)
    """Words to search for."""
    top: int = Field(5, ge=1, le=50)
    """Results wanted at most."""


class OcrRequest(Wire):
    """Body of a request to read the text in an image."""

    image: Base64
    """PNG bytes in base64."""


class TextLine(Wire):
    """A line of text in an image."""

    text: str = Field(max_length=1_000)
    """What it says."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the image that was sent."""
    score: float
    """The reader's confidence; higher is better."""


class OcrResponse(Wire):
    """Body of the answer."""

    lines: list[TextLine] = Field(max_length=500)
    """In reading order; none where there is no text."""


class SearchHit(Wire):
    """One result of a search."""

    title: str
    """Title of the page."""
    url: str = ""
    """Address of the page; empty where it has none."""
    text: str = ""
    """Summary of the page (text search)."""
    thumbnail: str = ""
    """A small PNG, JPEG or WEBP in base64 (image search); empty where there is none."""
    score: float = 0.0
    """The server's relevance score; higher is better."""


def clipped(hit: SearchHit) -> SearchHit:
    """A search result whose title and text have at most MAX_HIT_TITLE and MAX_HIT_TEXT characters."""
    return hit.model_copy(update={"title": hit.title[:MAX_HIT_TITLE], "text": hit.text[:MAX_HIT_TEXT]})


class SearchResponse(Wire):
    """Body of a search's answer."""

    hits: Annotated[list[SearchHit], FailFast()]
    """Best first."""


_PIECE = 3 << 16
"""Bytes encoded at a time, a multiple of three: the interpreter lock is held for one piece instead of for 64 MB."""


def with_image(request: GroundingRequest | ImageSearchRequest | OcrRequest, image: images.Image) -> bytes:
    """The JSON of a request whose image field was left empty, with this image in it.

    base64 needs no escaping, so the text is joined, not serialised: serialising holds the interpreter lock for as long
    as the image is large, and with it every thread that has a deadline.
    """
    head, mark, tail = request.model_dump_json().encode().partition(b'"image":"')
    assert tail.startswith(b'"'), "the image field is filled in here"
    png = image.png
    pieces = (base64.b64encode(png[start : start + _PIECE]) for start in range(0, len(png), _PIECE))
    return b"".join((head, mark, *pieces, tail))


def encode_image(image: images.Image) -> str:
    """The image's PNG bytes in base64."""
    return base64.b64encode(image.png).decode("ascii")


def decode_image(text: str, *, where: str = "image", max_pixels: int = images.MAX_PIXELS) -> images.Image:
    """The image in a base64 text.

    Args:
        text: encoded bytes of an image file in base64.
        where: the field, for messages.
        max_pixels: an image of more is refused before it is decoded.

    Raises:
        UserError: not base64, or not a readable image.
    """
    try:
        # In slices, because decoding holds the interpreter's lock: 64 MB at once would stop a server's event loop.
        slices = (text[start : start + SLICE] for start in range(0, len(text), SLICE))
        data = b"".join(base64.b64decode(each, validate=True) for each in slices)
    except ValueError:
        data = b""
    return images.decode(data, where=where, max_pixels=max_pixels)
