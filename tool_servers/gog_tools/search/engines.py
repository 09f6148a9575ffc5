"""Web search engines of vendors: a query in, results out.

A vendor's failures are typed here where its status alone is ambiguous. Every engine was written after its documentation
and tested against a fake that follows it; none was called live.

Source: serpapi.com/search-api, serpapi.com/api-status-and-error-codes; api.search.brave.com documentation (web search,
response headers); docs.searxng.org (search API), read in 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gog_tools.fetch import guard
from gog_tools.fetch.vendor import Api, Spending
from gog_tools.search.web import Result
from gog_tools.serving import errors


def items(answer: Mapping[str, Any], *path: str) -> list[dict[str, Any]]:
    """The objects of a list in an answer; none where it is missing. Other types inside the list are left out.

    Raises:
        Unavailable: what is there is no list.
    """
    value: Any = answer
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return []
    if not isinstance(value, list):
        raise errors.Unavailable(f"{'.'.join(path)} of the answer is a {type(value).__name__}, not a list")
    return [each for each in value if isinstance(each, dict)]


def word(item: Mapping[str, Any], *names: str) -> str:
    """The first of some fields that is a text; empty if none is."""
    return next((item[name] for name in names if isinstance(item.get(name), str) and item[name]), "")


@dataclass(frozen=True)
class SerpApi:
    """Google and other engines through SerpAPI."""

    api: Api
    """Its address and key."""
    engine: str = "google"
    """Engine of SerpAPI."""
    language: str = "en"
    """Language of the interface (`hl`)."""
    country: str = "us"
    """Country of the search (`gl`)."""
    price: float = 0.015
    """US dollars of a search that succeeds, an empty one included."""
    name: str = "serpapi"
    """As `web.Engine`."""
    max_results: int = 20
    """As `web.Engine`."""

    async def find(self, client: guard.Guard, query: str, count: int, spending: Spending) -> Sequence[Result]:
        params = {
            "engine": self.engine,
            "q": query[:2_000],
            "num": str(count),
            "hl": self.language,
            "gl": self.country,
            "output": "json",
            "api_key": self.api.key,
        }
        found = items(await serpapi_search(self.api, client, params, self.price, spending), "organic_results")
        return [Result(word(each, "title"), word(each, "link"), word(each, "snippet")) for each in found]


async def serpapi_search(
    api: Api, client: guard.Guard, params: Mapping[str, str], price: float, spending: Spending
) -> dict[str, Any]:
    """The answer of a search that succeeded, which alone is charged; an empty result is a success.

    Args:
        api: of SerpAPI.
        client: makes the request.
        params: of the search, its key included.
        price: US dollars of a search that succeeds.
        spending: where the request and its price are added.

    Raises:
        RequestError: as `Api.ask`, and for a search that did not succeed.

    Source: serpapi.com/pricing: only successful searches count; cached, errored and failed ones do not.
    """
    answer = await api.ask(client, "GET", spending, params=params)
    serpapi_status(answer)
    spending.add(price)
    return answer


def serpapi_status(answer: Mapping[str, Any]) -> None:
    """Checks the status inside an answer with HTTP 200; an empty result is a success there, with an `error` beside it.

    Raises:
        Unavailable: the search did not succeed.
    """
    meta = answer.get("search_metadata")
    status = meta.get("status") if isinstance(meta, dict) else None
    if status != "Success":
        raise errors.Unavailable(f"serpapi: the search ended with status {str(status)[:40]!r}")


def classify_serpapi(answer: guard.Answer, message: str) -> Exception | None:
    """429 means the hourly limit or no credit; only the message says which."""
    if answer.status == 429 and "run out of searches" in message.lower():
        return errors.NoCredit(message)
    if answer.status == 429:
        return errors.RateLimited(
            message, retry_after=60.0
        )  # no Retry-After is documented; the limit counts by the hour
    return None


@dataclass(frozen=True)
class Brave:
    """Brave's own index."""

    api: Api
    """Its address and key."""
    language: str = "en"
    """Language of results (`search_lang`)."""
    country: str = "us"
    """Country of the search."""
    price: float = 0.005
    """US dollars of a search that succeeds."""
    name: str = "brave"
    """As `web.Engine`."""
    max_results: int = 20
    """As `web.Engine`."""

    async def find(self, client: guard.Guard, query: str, count: int, spending: Spending) -> Sequence[Result]:
        words = " ".join(query[:400].split()[:50])  # longer queries are refused
        params = {
            "q": words,
            "count": str(count),
            "country": self.country,
            "search_lang": self.language,
            "result_filter": "web",
            "text_decorations": "false",
        }
        headers = {"x-subscription-token": self.api.key}
        answer = await self.api.ask(client, "GET", spending, price=self.price, params=params, headers=headers)
        found = items(answer, "web", "results")
        return [Result(word(each, "title"), word(each, "url"), word(each, "description")) for each in found]


def classify_brave(answer: guard.Answer, message: str) -> Exception | None:
    """A refused key is a 422 with a code; a 429 is the rate of a second or the quota of a month, as its headers say."""
    if answer.status == 422 and b"SUBSCRIPTION_TOKEN_INVALID" in answer.body:
        return errors.AuthFailed(message)
    if answer.status != 429:
        return None
    remaining, reset = (_numbers(answer.headers.get(f"x-ratelimit-{name}", "")) for name in ("remaining", "reset"))
    if len(remaining) > 1 and remaining[-1] == 0:
        return errors.NoCredit(f"{message} (the month's quota is used up)")
    return errors.RateLimited(message, retry_after=float(reset[0]) if reset else None)


def _numbers(header: str) -> list[int]:
    """The numbers of a header such as `1, 1419704`; none for anything else."""
    parts = [each.strip() for each in header.split(",")][:8]
    return (
        [int(each) for each in parts]
        if all(each.isascii() and each.isdigit() and len(each) < 12 for each in parts)
        else []
    )


@dataclass(frozen=True)
class SearXNG:
    """A SearXNG instance of your own, which asks other engines. For development: those suspend it now and then."""

    api: Api
    """Address of its /search."""
    language: str = "en"
    """Language of the search."""
    categories: str = "general"
    """Categories, separated by commas."""
    engines: str = ""
    """Engines, separated by commas; empty takes the instance's."""
    name: str = "searxng"
    """As `web.Engine`."""
    max_results: int = 50
    """As `web.Engine`."""

    async def find(self, client: guard.Guard, query: str, count: int, spending: Spending) -> Sequence[Result]:
        params = {"q": query[:1_000], "format": "json", "language": self.language, "categories": self.categories}
        params |= {"engines": self.engines} if self.engines else {}
        answer = await self.api.ask(client, "GET", spending, params=params)
        found = [
            Result(word(each, "title"), word(each, "url"), word(each, "content")) for each in items(answer, "results")
        ]
        silent = answer.get("unresponsive_engines")
        if not found and isinstance(silent, list) and silent:
            names = ", ".join(str(each[0] if isinstance(each, list) and each else each)[:30] for each in silent[:5])
            raise errors.Unavailable(f"searxng: no results, and engines that do not respond: {names}")
        return found[:count]


def classify_searxng(answer: guard.Answer, message: str) -> Exception | None:
    """403 is the answer of an instance whose JSON output is off, the default."""
    if answer.status == 403:
        return errors.AuthFailed(f"{message} (is json among search.formats in the instance's settings.yml?)")
    return None
