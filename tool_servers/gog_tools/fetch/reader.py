"""Readers: a web address in, the text of its page out.

`OwnReader` fetches pages itself, through the guard. `JinaReader` lets a vendor fetch and render them, so that the cluster
never connects to hosts that a page chose; addresses are checked all the same, because names of internal hosts must not
leak to the vendor either.

A page that cannot be read raises `Unreadable`; another one may take its place. What concerns every page (a refused key, no
credit, a vendor that is down) raises the errors of `gog_tools.serving.errors`.

Source: Jina's documentation of r.jina.ai (headers, JSON answers, rate limits), read in 2026, never called live.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

from gog_tools.fetch import guard, html, parsing
from gog_tools.fetch.vendor import Api, Spending
from gog_tools.serving import errors

MAX_TEXT = 30_000
"""Characters of a page that are read. Source: MMSearch-R1 clips pages to 30,000 characters."""


AT_ONCE = 16
"""Pages that one server fetches and parses at once; with the most bytes of a page this bounds its memory."""


class Unreadable(Exception):
    """One page cannot be read; other pages may."""


@dataclass(frozen=True)
class Read:
    """The text of a page."""

    title: str
    """Its title; empty if it has none."""
    text: str = field(repr=False)
    """Its text, not cleaned yet."""


class Reader(Protocol):
    """Reads pages."""

    async def read(self, client: guard.Guard, url: str, spending: Spending) -> Read:
        """The text of a page.

        Args:
            client: makes the requests.
            url: of the page, as a search returned it.
            spending: where paid requests are added.

        Raises:
            Unreadable: this page cannot be read.
            RequestError: no page can be read now.
        """
        ...


@dataclass(frozen=True)
class OwnReader:
    """Fetches pages itself: HTML and plain text."""

    limits: guard.Limits = field(default_factory=guard.Limits)
    """Bounds of a page."""
    max_text: int = MAX_TEXT
    """Most characters of its text."""
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE), repr=False)
    """Held while a page is fetched and parsed."""
    parsers: parsing.Parsers = field(default_factory=parsing.Parsers, repr=False)
    """Parse pages, off the event loop: a large one takes a second."""

    async def read(self, client: guard.Guard, url: str, spending: Spending) -> Read:
        async with self.slots:
            try:
                answer = await client.page(url, self.limits)
            except (guard.Blocked, guard.Unreachable) as error:
                raise Unreadable(str(error)) from None
            if answer.status != 200:
                raise Unreadable(f"HTTP {answer.status}")
            found = await self.parsers.run(lambda: text_of(answer, self.max_text))
        if not found.text.strip():
            raise Unreadable("the page shows no text")
        return found


def text_of(answer: guard.Answer, limit: int) -> Read:
    """The text of a fetched document."""
    charset = _charset(answer.headers.get("content-type", ""))
    if "html" in answer.content_type:
        page = html.read(answer.body, charset, limit=limit)
        return Read(page.title, page.text)
    return Read("", _decoded(answer.body[: 4 * limit], charset)[:limit])


def _decoded(body: bytes, charset: str) -> str:
    """A plain text in the charset that the server names, or in UTF-8.

    Only charsets of libxml2, because Python's codecs hold others that raise (idna, undefined) or are quadratic (punycode).
    """
    try:
        return body.decode(html.known(charset) or "utf-8", "replace")
    except (LookupError, ValueError):  # Python does not know it
        return body.decode("utf-8", "replace")


def _charset(content_type: str) -> str:
    for part in content_type.split(";")[1:]:
        name, _, value = part.strip().partition("=")
        if name.lower() == "charset":
            return value.strip("\"' ")[:40]
    return ""


@dataclass(frozen=True)
class JinaReader:
    """Jina's Reader API."""

    api: Api
    """Its address and key."""
    rules: guard.Rules
    """Which addresses may be given to the vendor."""
    price_per_million: float = 0.05
    """US dollars for a million tokens of text."""
    max_text: int = MAX_TEXT
    """Most characters of its text."""

    async def read(self, client: guard.Guard, url: str, spending: Spending) -> Read:
        try:
            checked = self.rules.check(url)
        except guard.Blocked as error:
            raise Unreadable(str(error)) from None
        headers = {"accept": "application/json", "x-retain-images": "none", "x-respond-with": "text"}
        if self.api.key:
            headers["authorization"] = f"Bearer {self.api.key}"
        try:
            answer = await self.api.ask(client, "POST", spending, headers=headers, json={"url": str(checked)})
        except errors.Refused as error:  # 400, 404, 422, 451: about this page
            raise Unreadable(error.message) from None
        data = answer.get("data")
        if not isinstance(data, dict) or not isinstance(data.get("content"), str) or not data["content"].strip():
            raise Unreadable("the reader returned no text")
        spending.add(_tokens(data) * self.price_per_million / 1e6)
        title = data.get("title")
        return Read(title if isinstance(title, str) else "", data["content"][: self.max_text])


def _tokens(data: dict[str, Any]) -> int:
    """Tokens that a page is charged for; estimated from its length where the answer does not say."""
    usage = data.get("usage")
    tokens = usage.get("tokens") if isinstance(usage, dict) else None
    known = isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens < 10**8
    return tokens if known and isinstance(tokens, int) else len(data["content"]) // 4
