"""The back ends `serpapi`, `brave` and `searxng` of text search: their options, and what is built of them.

Options are checked here, before the server is ready; a wrong one is refused by name. Whatever changes an answer (engine,
language, reader, model) is an option, and options are part of the key under which answers are recorded.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gog.errors import UserError
from gog_tools.fetch import guard, reader, summaries, vendor
from gog_tools.search import engines as web_engines
from gog_tools.search import web

Price = Annotated[float, Field(ge=0, le=1_000)]
Code = Annotated[str, Field(pattern="^[A-Za-z]{2,3}([-_][A-Za-z]{2,4})?$")]
"""A language or country."""
Variable = Annotated[str, Field(pattern="^[A-Z][A-Z0-9_]{0,99}$")]
"""Name of an environment variable that holds a key."""


class Options(BaseModel):
    """Base of nested options: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, frozen=True)


class ReaderOptions(Options):
    """How pages are read."""

    kind: Literal["own", "jina", "none"] = "own"
    """own: fetched by this server; jina: by Jina's Reader API; none: the engine's snippets are the texts."""
    candidates: int = Field(15, ge=1, le=50)
    """Addresses of which the first that can be read count."""
    parallel: int = Field(5, ge=1, le=50)
    """Pages of one search that are read at once."""
    page_seconds: float = Field(10.0, gt=0, le=300)
    """Deadline of one page."""
    seconds: float = Field(20.0, gt=0, le=600)
    """After which a search waits for no further page."""
    max_bytes: int = Field(2_000_000, ge=1_000, le=50_000_000)
    """Most bytes of a page, decoded."""
    max_text: int = Field(reader.MAX_TEXT, ge=100, le=1_000_000)
    """Most characters of a page's text."""
    allow: list[str] = Field(default_factory=list, max_length=64)
    """Networks whose pages may be read although they are not public, as 10.1.0.0/16."""
    deny: list[str] = Field(default_factory=list, max_length=64)
    """Networks whose pages may not be read although they are public."""
    ports: list[Annotated[int, Field(ge=1, le=65_535)]] = Field([80, 443], min_length=1, max_length=64)
    """Ports that pages may be read from."""
    url: str = "https://r.jina.ai/"
    """Address of the Reader API (jina)."""
    key_variable: Variable | None = None
    """Environment variable with the key; null asks without one, at 20 requests a minute (jina)."""
    price: Price = 0.05
    """US dollars for a million tokens (jina)."""


class SummariserOptions(Options):
    """How pages are summarised."""

    kind: Literal["extractive", "openai"] = "extractive"
    """extractive: sentences of the page; openai: any OpenAI-compatible model."""
    sentences: int = Field(summaries.MAX_SENTENCES, ge=1, le=summaries.MAX_SENTENCES)
    """Most sentences (extractive)."""
    url: str = ""
    """Base address of the API, as https://host/v1 (openai)."""
    model: str = Field("", max_length=253)
    """Its model (openai)."""
    key_variable: Variable | None = None
    """Environment variable with the key; null sends none (openai)."""
    max_tokens: int = Field(4_096, ge=16, le=100_000)
    """Tokens that it may write, its reasoning included (openai)."""
    seconds: float = Field(30.0, gt=0, le=600)
    """Deadline of a summary (openai)."""
    price: tuple[Price, Price] = (0.0, 0.0)
    """US dollars for a million tokens: of prompts, and of what it writes (openai)."""


READER, SUMMARISER = ReaderOptions(), SummariserOptions()


def serpapi(
    *,
    engine: Annotated[str, Field(pattern="^[a-z_]{1,40}$")] = "google",
    language: Code = "en",
    country: Code = "us",
    url: str = "https://serpapi.com/search",
    key_variable: Variable = "SERPAPI_API_KEY",
    price: Price = 0.015,
    seconds: Annotated[float, Field(gt=0, le=300)] = 20.0,
    reader: ReaderOptions = READER,
    summariser: SummariserOptions = SUMMARISER,
) -> web.WebSearch:
    """Text search through SerpAPI. Raises UserError for an option that does not fit."""
    key = vendor.key_of(key_variable, "key_variable")
    api = vendor.Api("serpapi", vendor.address(url, "url"), key, seconds, web_engines.classify_serpapi)
    return _search(web_engines.SerpApi(api, engine, language, country, price), reader, summariser)


def brave(
    *,
    language: Code = "en",
    country: Code = "us",
    url: str = "https://api.search.brave.com/res/v1/web/search",
    key_variable: Variable = "BRAVE_API_KEY",
    price: Price = 0.005,
    seconds: Annotated[float, Field(gt=0, le=300)] = 20.0,
    reader: ReaderOptions = READER,
    summariser: SummariserOptions = SUMMARISER,
) -> web.WebSearch:
    """Text search through Brave. Raises UserError for an option that does not fit."""
    key = vendor.key_of(key_variable, "key_variable")
    api = vendor.Api("brave", vendor.address(url, "url"), key, seconds, web_engines.classify_brave)
    return _search(web_engines.Brave(api, language, country, price), reader, summariser)


def searxng(
    url: str,
    *,
    language: Code = "en",
    categories: Annotated[str, Field(max_length=200)] = "general",
    engines: Annotated[str, Field(max_length=200)] = "",
    seconds: Annotated[float, Field(gt=0, le=300)] = 20.0,
    reader: ReaderOptions = READER,
    summariser: SummariserOptions = SUMMARISER,
) -> web.WebSearch:
    """Text search through a SearXNG instance, at its base address. Raises UserError for an option that does not fit."""
    base = vendor.Api("searxng", vendor.address(url, "url"), "", seconds, web_engines.classify_searxng)
    return _search(web_engines.SearXNG(base.at("search"), language, categories, engines), reader, summariser)


def _search(engine: web.Engine, how: ReaderOptions, summary: SummariserOptions) -> web.WebSearch:
    allow, deny = guard.networks(how.allow, "reader.allow"), guard.networks(how.deny, "reader.deny")
    rules = guard.Rules(allow, deny, frozenset(how.ports))
    if how.kind == "none":
        return web.WebSearch(engine, None, rules)
    pages = web.Pages(_reader(how, rules), _summariser(summary), how.candidates, how.parallel, how.seconds)
    return web.WebSearch(engine, pages, rules)


def _reader(how: ReaderOptions, rules: guard.Rules) -> reader.Reader:
    if how.kind == "own":
        return reader.OwnReader(guard.Limits(how.max_bytes, how.page_seconds), how.max_text)
    key = vendor.key_of(how.key_variable, "reader.key_variable") if how.key_variable else ""
    api = vendor.Api("jina", vendor.address(how.url, "reader.url"), key, how.page_seconds, max_bytes=how.max_bytes)
    return reader.JinaReader(api, rules, how.price, how.max_text)


def _summariser(how: SummariserOptions) -> summaries.Summariser:
    if how.kind == "extractive":
        return summaries.Extractive(how.sentences)
    if not how.model:
        raise UserError("no model", where="--options summariser.model", remedy="name one of the API's models")
    key = vendor.key_of(how.key_variable, "summariser.key_variable") if how.key_variable else ""
    base = vendor.Api("summariser", vendor.address(how.url, "summariser.url"), key, how.seconds)
    return summaries.ModelSummariser(base.at("chat/completions"), how.model, how.max_tokens, how.price)
