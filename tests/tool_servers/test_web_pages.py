"""A page that breaks what reads it, and the search that it belongs to."""

from __future__ import annotations

import pytest

from gog_tools.fetch.reader import Read
from gog_tools.search.web import Pages, Result, WebSearch


class Engine:
    """Finds three pages, for a price."""

    name, max_results = "engine", 10

    async def find(self, client, query, count, spending):
        spending.calls += 1
        spending.add(0.015)
        return [Result(f"Result {n}", f"https://{n}.example/", f"Snippet {n}.") for n in range(3)]


class Reader:
    """Breaks at some pages."""

    def __init__(self, *breaks):
        self.breaks = breaks

    async def read(self, client, url, spending):
        if url in self.breaks:
            raise RecursionError("too\x1b deep")
        return Read("", "Text.")


class Summariser:
    async def summarise(self, client, query, title, page, spending):
        return page


@pytest.fixture
def search(request):
    def over(*breaks):
        backend = WebSearch(Engine(), Pages(Reader(*breaks), Summariser()))
        request.addfinalizer(backend.close)
        (found,) = backend.search(["q"], [2])
        return found

    return over


def test_a_page_that_breaks_its_reader_is_logged_and_makes_room_for_the_next(search, caplog):
    found = search("https://0.example/")
    assert [hit.url for hit in found.hits] == ["https://1.example/", "https://2.example/"]
    assert (found.pages, found.cost_usd) == ((2, 1), 0.015)
    assert "a page cannot be read: RecursionError: too deep" in caplog.text


def test_a_search_whose_pages_all_break_their_reader_returns_snippets_and_its_cost(search):
    found = search(*(f"https://{n}.example/" for n in range(3)))
    assert [hit.text for hit in found.hits] == ["Snippet 0.", "Snippet 1."]
    assert (found.pages, found.cost_usd) == ((0, 3), 0.015)
