"""Text search on the web: an engine finds addresses, a reader reads their pages, a summariser writes what they say.

Pages are read side by side, in the engine's order; one that cannot be read makes room for the next address, until `top`
summaries are there, the addresses are used up, or time is. Without a reader, the engine's own snippets are the texts.

One failing page is no failure of the search, whatever it fails of. A refused key, no credit, or a vendor that fails for every page is: then
the answer is the vendor's failure, so that an outage never looks like a question without results. When every page fails
for reasons of its own, the engine's snippets are returned, because they are what is known.

Source: MMSearch-R1 replaces failed pages until five succeed or the list ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gog import tool_api, wording
from gog.io_loop import IOLoop
from gog_tools.fetch import guard, text
from gog_tools.fetch.reader import Reader, Unreadable
from gog_tools.fetch.summaries import MAX_SUMMARY, Summariser
from gog_tools.fetch.vendor import Spending
from gog_tools.search.backend import Found
from gog_tools.serving import errors

log = logging.getLogger(__name__)

MAX_TITLE = 200
MAX_SNIPPET = 500


@dataclass(frozen=True)
class Result:
    """One result of an engine, as it came: neither cleaned nor cut."""

    title: str
    """Title of the page."""
    url: str
    """Its address."""
    snippet: str = ""
    """What the engine shows of it; empty if nothing."""


class Engine(Protocol):
    """A search engine."""

    @property
    def name(self) -> str:
        """In one word of letters, digits and dashes."""
        ...

    @property
    def max_results(self) -> int:
        """Most results that one request returns."""
        ...

    async def find(self, client: guard.Guard, query: str, count: int, spending: Spending) -> Sequence[Result]:
        """Results, best first; none when nothing was found.

        Args:
            client: makes the requests.
            query: as the policy wrote it, not empty.
            count: results wanted, at most `max_results`.
            spending: where requests and their prices are added.

        Raises:
            RequestError: what the vendor answered.
        """
        ...


@dataclass(frozen=True)
class Pages:
    """How results become texts."""

    reader: Reader
    """Reads a page."""
    summariser: Summariser
    """Summarises what was read."""
    candidates: int = 15
    """Addresses that the engine is asked for, of which the first that can be read count."""
    parallel: int = 5
    """Pages of one search that are read at once."""
    seconds: float = 30.0
    """After which no further page is waited for; what is there is returned."""


class WebSearch:
    """A TextSearch on the web."""

    max_batch = 1
    threads = 16

    def __init__(
        self,
        engine: Engine,
        pages: Pages | None,
        rules: guard.Rules | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens the client on a loop of its own, which lives as long as the process.

        Args:
            engine: finds addresses.
            pages: how they are read; None returns the engine's snippets.
            rules: which hosts pages may be read from.
            clock: seconds, monotonic.
        """
        self.engine, self.pages, self.clock = engine, pages, clock
        self._loop = IOLoop("web-search")
        self._client = guard.Guard(rules)
        self._loop.call(self._client.__aenter__())

    def close(self) -> None:
        """Ends the client and its loop."""
        self._loop.call(self._client.__aexit__(None, None, None))
        self._loop.close()

    def search(self, queries: Sequence[str], tops: Sequence[int]) -> list[Found]:
        """The best pages for each query."""
        return [self._loop.call(self._search(query, top)) for query, top in zip(queries, tops, strict=True)]

    async def _search(self, query: str, top: int) -> Found:
        spending = Spending(self.engine.name)
        plain = text.clean(query, tool_api.MAX_QUERY)
        try:
            hits = await self._hits(plain, top, spending) if plain else []
        except errors.RequestError as error:
            error.charge = spending.charge
            raise
        charge = spending.charge
        return Found(hits, charge.cost_usd, charge.credit_usd, charge.vendor, charge.calls, charge.pages)

    async def _hits(self, query: str, top: int, spending: Spending) -> list[tool_api.SearchHit]:
        wanted = top if self.pages is None else max(top, self.pages.candidates)
        found = await self.engine.find(self._client, query, min(wanted, self.engine.max_results), spending)
        unique = list({each.url: each for each in reversed(found) if text.clean_url(each.url)}.values())[::-1]
        snippets = [_hit(each, text.clean(each.snippet, MAX_SNIPPET)) for each in unique]
        if self.pages is None or not unique:
            return snippets[:top]
        hits = await self._read(self.pages, query, unique, top, spending)
        return hits or [each for each in snippets if each.text][:top]

    async def _read(
        self, pages: Pages, query: str, found: Sequence[Result], top: int, spending: Spending
    ) -> list[tool_api.SearchHit]:
        """Summaries of the first `top` results that can be read, in their order.

        Raises:
            RequestError: the key or the credit of a vendor is at fault, or vendors failed for every page.
        """
        summaries: dict[int, tool_api.SearchHit] = {}
        failures: list[errors.RequestError] = []
        # Closed here, not by the garbage collector: an error must end the other pages' requests, which may be paid.
        async with contextlib.aclosing(self._outcomes(pages, query, found, top, spending)) as outcomes:
            async for index, outcome in outcomes:
                spending.count_page(read=isinstance(outcome, tool_api.SearchHit))
                if isinstance(outcome, errors.AuthFailed | errors.NoCredit):
                    raise outcome
                if isinstance(outcome, errors.RequestError):
                    failures.append(outcome)
                elif outcome is not None:
                    summaries[index] = outcome
        if failures and not summaries:
            raise failures[-1]
        return [summaries[index] for index in sorted(summaries)][:top]

    async def _outcomes(
        self, pages: Pages, query: str, found: Sequence[Result], top: int, spending: Spending
    ) -> AsyncGenerator[tuple[int, tool_api.SearchHit | errors.RequestError | None]]:
        """What becomes of each page, as it is known; ends when `top` have been read. None: the page cannot be read."""
        end = self.clock() + pages.seconds
        waiting, read = iter(range(len(found))), 0
        tasks: dict[asyncio.Task[tool_api.SearchHit | errors.RequestError | None], int] = {}
        try:
            while read < top:
                while len(tasks) < min(pages.parallel, top - read) and (index := next(waiting, None)) is not None:
                    tasks[asyncio.create_task(self._page(pages, query, found[index], spending))] = index
                left = end - self.clock()
                if not tasks or left <= 0:
                    return
                done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    read += isinstance(task.result(), tool_api.SearchHit)
                    yield tasks.pop(task), task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _page(
        self, pages: Pages, query: str, result: Result, spending: Spending
    ) -> tool_api.SearchHit | errors.RequestError | None:
        """The summary of one page; None if it cannot be read; the error if that is a vendor's.

        Any other exception is logged and concerns this page only: the search is paid for, and a page can provoke it.
        """
        try:
            page = await pages.reader.read(self._client, result.url, spending)
            title = text.clean(result.title or page.title, MAX_TITLE)
            return _hit(result, await pages.summariser.summarise(self._client, query, title, page.text, spending))
        except Unreadable:
            return None
        except errors.RequestError as error:
            return error
        except Exception as error:  # noqa: BLE001  of any library that reads pages
            log.error("a page cannot be read: %s: %s", type(error).__name__, wording.one_line(str(error)))
            return None


def _hit(result: Result, words: str) -> tool_api.SearchHit:
    title = text.clean(result.title, MAX_TITLE) or text.clean(result.url, MAX_TITLE)
    return tool_api.SearchHit(title=title, url=text.clean_url(result.url), text=words[:MAX_SUMMARY])
