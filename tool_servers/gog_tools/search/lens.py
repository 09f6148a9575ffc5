"""The back end `serpapi-lens` of image search: Google Lens through SerpAPI.

Lens fetches the image from an address. So an image is published as a short-lived presigned object of a bucket
(`gog.store.Publisher`) for as long as its search takes. The vendor sees the pixels of the crop and a random name, nothing
else. Thumbnails of the results come back as images where that is chosen; they are fetched by the guard, and decoded only
when they are as small as thumbnails are.

Source: serpapi.com/google-lens-api, read in 2026, never called live.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from PIL import Image as PILImage
from pydantic import Field

from gog import images as gog_images
from gog import tool_api
from gog.errors import UserError
from gog.images import Image
from gog.io_loop import IOLoop
from gog.spec import StoreSpec
from gog.store import Publisher, Unavailable
from gog_tools.fetch import guard, text, vendor
from gog_tools.fetch.vendor import Api, Spending
from gog_tools.search import engines
from gog_tools.search.backend import Found
from gog_tools.search.web import MAX_TITLE
from gog_tools.search.web_backends import Code, Options, Price, Variable
from gog_tools.serving import errors

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp")
MAX_THUMBNAIL_PIXELS = 1_000_000
"""Thumbnails have some ten thousand pixels; an image of more is not decoded."""
QUALITY = 90
"""Of the JPEG that is published."""
LISTS = {"all": "visual_matches", "visual_matches": "visual_matches", "exact_matches": "exact_matches"}
"""The list of an answer that holds the results, by type of search."""


class ThumbnailOptions(Options):
    """Thumbnails that come back as images."""

    count: int = Field(0, ge=0, le=20)
    """Results of a search whose thumbnails come back; 0 for none."""
    side: int = Field(224, ge=16, le=1_024)
    """Longest side in pixels; a larger thumbnail is made smaller."""
    max_bytes: int = Field(1_000_000, ge=1_000, le=10_000_000)
    """Most bytes of a thumbnail."""
    seconds: float = Field(5.0, gt=0, le=60)
    """Deadline of each; one that is late is left out."""
    allow: list[str] = Field(default_factory=list, max_length=64)
    """Networks that thumbnails may be fetched from although they are not public."""
    deny: list[str] = Field(default_factory=list, max_length=64)
    """Networks that thumbnails may not be fetched from although they are public."""
    ports: list[Annotated[int, Field(ge=1, le=65_535)]] = Field([80, 443], min_length=1, max_length=64)
    """Ports that thumbnails may be fetched from."""


THUMBNAILS = ThumbnailOptions()


class Lens:
    """An ImageSearch through Google Lens."""

    max_batch = 1
    threads = 16

    def __init__(
        self,
        api: Api,
        publisher: Publisher,
        params: dict[str, str],
        *,
        price: float,
        max_side: int,
        thumbnails: ThumbnailOptions,
    ) -> None:
        """Opens the client on a loop of its own, which lives as long as the process.

        Args:
            api: of SerpAPI, with its key.
            publisher: makes crops fetchable.
            params: of every search, without key and address.
            price: US dollars of a search that succeeds.
            max_side: longest side of a published image, in pixels.
            thumbnails: which of them come back.
        """
        self._api, self._publisher, self._params = api, publisher, params
        self._price, self._max_side, self._thumbnails = price, max_side, thumbnails
        allow = guard.networks(thumbnails.allow, "thumbnails.allow")
        deny = guard.networks(thumbnails.deny, "thumbnails.deny")
        self._loop = IOLoop("lens")
        self._client = guard.Guard(guard.Rules(allow, deny, frozenset(thumbnails.ports)))
        self._loop.call(self._client.__aenter__())

    def close(self) -> None:
        """Ends the client and its loop."""
        self._loop.call(self._client.__aexit__(None, None, None))
        self._loop.close()

    def search(self, images: Sequence[Image], tops: Sequence[int]) -> list[Found]:
        """Pages that show each image."""
        return [self._search(image, top) for image, top in zip(images, tops, strict=True)]

    def _search(self, image: Image, top: int) -> Found:
        spending = Spending(self._api.name)
        try:
            with self._publisher.published(_jpeg(image, self._max_side), "image/jpeg", ".jpg") as url:
                answer = self._loop.call(self._ask(url, spending))
            hits = self._loop.call(self._hits(answer, top))
        except errors.RequestError as error:
            error.charge = spending.charge
            raise
        except (Unavailable, UserError) as error:  # of the bucket: no fault of this request
            raise errors.Unavailable(f"the image cannot be published: {error}", charge=spending.charge) from None
        charge = spending.charge
        return Found(hits, charge.cost_usd, charge.credit_usd, charge.vendor, charge.calls)

    async def _ask(self, url: str, spending: Spending) -> dict[str, Any]:
        params = {**self._params, "url": url, "api_key": self._api.key}
        return await engines.serpapi_search(self._api, self._client, params, self._price, spending)

    async def _hits(self, answer: dict[str, Any], top: int) -> list[tool_api.SearchHit]:
        found = engines.items(answer, LISTS[self._params["type"]])[:top]
        wanted = [engines.word(each, "thumbnail") for each in found[: self._thumbnails.count]]
        made = await asyncio.gather(*(self._thumbnail(each) for each in wanted))
        made += [""] * (len(found) - len(made))
        return [
            tool_api.SearchHit(
                title=text.clean(engines.word(each, "title"), MAX_TITLE) or "untitled",
                url=text.clean_url(engines.word(each, "link")),
                text=text.clean(engines.word(each, "source"), MAX_TITLE),
                thumbnail=each_thumbnail,
            )
            for each, each_thumbnail in zip(found, made, strict=True)
        ]

    async def _thumbnail(self, url: str) -> str:
        """PNG bytes in base64; empty for one that cannot be fetched or decoded."""
        how = self._thumbnails
        limits = guard.Limits(how.max_bytes, how.seconds, IMAGE_TYPES)
        try:
            answer = await self._client.page(url, limits)
        except (guard.Blocked, guard.Unreachable):
            return ""
        return await asyncio.to_thread(thumbnail, answer.body, how.side) if answer.status == 200 else ""


def thumbnail(data: bytes, side: int) -> str:
    """An image file as PNG bytes in base64, no side longer than `side`; empty if it is no small image."""
    try:
        with PILImage.open(io.BytesIO(data), formats=gog_images.FORMATS) as opened:
            if opened.width * opened.height > MAX_THUMBNAIL_PIXELS:
                return ""
        image = gog_images.decode(data, where="thumbnail")
    except (UserError, OSError, ValueError, SyntaxError, PILImage.DecompressionBombError):
        return ""
    small = PILImage.fromarray(image.pixels)
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _jpeg(image: Image, max_side: int) -> bytes:
    """What is published: the pixels alone, no larger than the vendor needs."""
    opened = PILImage.fromarray(image.pixels)
    opened.thumbnail((max_side, max_side))
    stream = io.BytesIO()
    opened.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def lens(
    store: StoreSpec,
    *,
    type: Literal["all", "visual_matches", "exact_matches"] = "all",
    language: Code = "en",
    country: Code = "us",
    url: str = "https://serpapi.com/search",
    key_variable: Variable = "SERPAPI_API_KEY",
    price: Price = 0.015,
    seconds: Annotated[float, Field(gt=0, le=300)] = 30.0,
    publish_seconds: Annotated[int, Field(ge=10, le=3_600)] = 120,
    public_endpoint: Annotated[str, Field(max_length=1_024)] | None = None,
    max_side: Annotated[int, Field(ge=64, le=4_096)] = 1_280,
    thumbnails: ThumbnailOptions = THUMBNAILS,
) -> Lens:
    """Image search through Google Lens. Raises UserError for an option that does not fit, Unavailable for a store."""
    key = vendor.key_of(key_variable, "key_variable")
    api = Api("serpapi", vendor.address(url, "url"), key, seconds, engines.classify_serpapi)
    public = vendor.address(public_endpoint, "public_endpoint") if public_endpoint is not None else None
    publisher = Publisher(store, seconds=publish_seconds, public_endpoint=public)
    params = {"engine": "google_lens", "type": type, "hl": language, "country": country, "output": "json"}
    return Lens(api, publisher, params, price=price, max_side=max_side, thumbnails=thumbnails)
