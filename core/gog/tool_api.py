"""What travels between the agent and the tool servers, in one place for both sides.

Grounding speaks KServe's v1 protocol (`POST /v1/models/grounding:predict`), judge and policy speak the OpenAI chat
protocol, the two searches are plain JSON. Images travel as base64 of PNG bytes: never as a path, never as an
address that somebody would have to fetch.
"""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gog import images

GROUNDING_PATH = "/v1/models/grounding:predict"
IMAGE_SEARCH_PATH = "/v1/search/image"
TEXT_SEARCH_PATH = "/v1/search/text"
CHAT_PATH = "/v1/chat/completions"
COST_HEADER, CREDIT_HEADER = "x-gog-cost-usd", "x-gog-credit-usd"
"""Of an answer, in US dollars, where it is bought: what it cost, and what is left on the account."""

MAX_EXPRESSION, MAX_QUERY = 1_000, 4_000
"""Characters of an expression and of a query that a tool server accepts."""

Base64 = Annotated[str, Field(max_length=64_000_000)]


class Wire(BaseModel):
    """Strict on what we send and read: a body with other fields is a malformed body."""

    model_config = ConfigDict(extra="forbid")


class GroundingInstance(Wire):
    image: Base64
    expression: str = Field(max_length=MAX_EXPRESSION)


class GroundingRequest(Wire):
    instances: list[GroundingInstance] = Field(min_length=1, max_length=64)


class Detection(Wire):
    """A box x0, y0, x1, y1 in pixels of the image that was sent, best score first."""

    box: tuple[float, float, float, float]
    score: float
    label: str = ""


class GroundingPrediction(Wire):
    detections: list[Detection]


class GroundingResponse(Wire):
    predictions: list[GroundingPrediction]


class ImageSearchRequest(Wire):
    image: Base64
    top: int = Field(5, ge=1, le=50)


class TextSearchRequest(Wire):
    query: str = Field(max_length=MAX_QUERY)
    top: int = Field(5, ge=1, le=50)


class SearchHit(Wire):
    """title and url of what was found; text: the page's summary (text search); thumbnail: base64 PNG (image search)."""

    title: str
    url: str = ""
    text: str = ""
    thumbnail: Base64 = ""
    score: float = 0.0


class SearchResponse(Wire):
    hits: list[SearchHit]


_PIECE = 3 << 16
"""Bytes encoded at a time, a multiple of three: the interpreter lock is held for one piece, and not for 64 MB."""


def with_image(request: GroundingRequest | ImageSearchRequest, image: images.Image) -> bytes:
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
    return base64.b64encode(image.png).decode("ascii")


def decode_image(text: str, *, where: str = "image") -> images.Image:
    """base64 -> Image; raises UserError (bad base64 counts as an image that cannot be read)."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    return images.decode(data, where=where)
