"""Vendors on loopback, after their documented behaviour: statuses, bodies, quotas. And web pages to read.

One server plays all of them, each under its path. `Vendors.fail` replaces the next answers of one vendor.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

from PIL import Image as PILImage

KEY = "vendor-key-0123456789"
FACT = "The tower was built in 1887 by Ada Lovelace."


@dataclass
class Asked:
    """One request."""

    vendor: str
    """Its first path element."""
    query: dict[str, str]
    """Parameters of the URL."""
    headers: dict[str, str] = field(repr=False)
    """By name in lower case."""
    body: Any = None
    """JSON of the body."""
    fetched: bytes = b""
    """What the image search found at the address it was given."""


@dataclass
class Answer:
    """One response."""

    status: int
    body: bytes | dict[str, Any] | list[Any] | str
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


class Vendors:
    """Use as a context manager."""

    def __init__(self, *, credit: int = 1_000) -> None:
        """credit: searches that SerpAPI has left."""
        self.credit = credit
        self.asked: list[Asked] = []
        self.pages: dict[str, Answer | Callable[[], Answer]] = {str(n): page(n) for n in range(30)}
        self.results = 10
        self._failures: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Vendors:
        vendors = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                vendors.serve(self)

            do_POST = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail(self, vendor: str, *answers: Answer) -> None:
        """The next answers of a vendor."""
        self._failures.setdefault(vendor, []).extend(answers)

    def of(self, vendor: str) -> list[Asked]:
        """The requests of one vendor."""
        return [each for each in self.asked if each.vendor == vendor]

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        vendor, _, rest = parts.path.strip("/").partition("/")
        size = int(handler.headers.get("content-length") or 0)
        body = handler.rfile.read(size)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in handler.headers.items()}
        asked = Asked(vendor, query, headers, json.loads(body) if body else None)
        with self._lock:
            self.asked.append(asked)
            waiting = self._failures.get(vendor)
            answer = waiting.pop(0) if waiting else None
        answer = answer or _ANSWERS.get(vendor, missing)(self, asked, rest)
        data = answer.data
        handler.send_response(answer.status)
        for name, value in {"content-type": answer.kind, **answer.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that stops at its limit of bytes
            handler.wfile.write(data)

    def address(self, number: int) -> str:
        """Of a page."""
        return f"{self.url}/page/{number}"


def page(number: int) -> Answer:
    """An ordinary web page with one fact and much else."""
    words = "".join(f"<p>Paragraph {n} of page {number} talks of the weather.</p>" for n in range(8))
    text = f"<html><title>Page {number}</title><body><script>x()</script>{words}<p>{FACT}</p>{words}</body></html>"
    return Answer(200, text, "text/html; charset=utf-8")


def missing(vendors: Vendors, asked: Asked, rest: str) -> Answer:
    return Answer(404, {"error": "Not Found"})


def web_page(vendors: Vendors, asked: Asked, rest: str) -> Answer:
    found = vendors.pages.get(rest, Answer(404, "gone", "text/html"))
    return found() if callable(found) else found


def serpapi(vendors: Vendors, asked: Asked, rest: str) -> Answer:
    """serpapi.com/api-status-and-error-codes"""
    if asked.query.get("api_key") != KEY:
        message = "Invalid API key. Your API key should be here: https://serpapi.com/manage-api-key"
        return Answer(401, {"error": message})
    lens = asked.query.get("engine") == "google_lens"
    if not asked.query.get("url" if lens else "q"):
        return Answer(400, {"error": f"Missing query `{'url' if lens else 'q'}` parameter."})
    with vendors._lock:
        if vendors.credit < 1:
            return Answer(429, {"error": "Your account has run out of searches."})
        vendors.credit -= 1
    meta = {"search_metadata": {"id": "64c3", "status": "Success", "total_time_taken": 1.2}}
    if lens:
        with urlopen(asked.query["url"], timeout=5) as response:
            asked.fetched = response.read()
    if not vendors.results:
        message = "Google hasn't returned any results for this query."
        return Answer(200, {**meta, "search_information": {"organic_results_state": "Fully empty"}, "error": message})
    return Answer(200, {**meta, **(visual_matches(vendors) if lens else organic(vendors))})


def organic(vendors: Vendors) -> dict[str, Any]:
    results = [
        {"position": n + 1, "title": f"Result {n}", "link": vendors.address(n), "snippet": f"Snippet {n}."}
        for n in range(vendors.results)
    ]
    return {"organic_results": results}


def visual_matches(vendors: Vendors) -> dict[str, Any]:
    matches = [
        {
            "position": n + 1,
            "title": f"Match {n}",
            "link": vendors.address(n),
            "source": "Example",
            "thumbnail": f"{vendors.url}/thumbnail/{n}",
            "thumbnail_width": 40,
            "thumbnail_height": 30,
        }
        for n in range(vendors.results)
    ]
    return {"visual_matches": matches}


def thumbnail(vendors: Vendors, asked: Asked, rest: str) -> Answer:
    stream = io.BytesIO()
    PILImage.new("RGB", (40, 30), (10 * int(rest or 0), 80, 160)).save(stream, "JPEG")
    return Answer(200, stream.getvalue(), "image/jpeg")


def brave(vendors: Vendors, asked: Asked, rest: str) -> Answer:
    """api.search.brave.com/app/documentation"""
    if asked.headers.get("x-subscription-token") != KEY:
        error = {"code": "SUBSCRIPTION_TOKEN_INVALID", "detail": "The provided subscription token is invalid."}
        return Answer(422, {"type": "ErrorResponse", "error": {**error, "status": 422, "id": "x"}})
    if len(asked.query["q"]) > 400 or len(asked.query["q"].split()) > 50 or int(asked.query["count"]) > 20:
        return Answer(422, {"type": "ErrorResponse", "error": {"code": "VALIDATION", "detail": "Unable to validate"}})
    results = [
        {"title": f"Result {n}", "url": vendors.address(n), "description": f"Snippet {n}.", "type": "search_result"}
        for n in range(vendors.results)
    ]
    return Answer(200, {"type": "search", "query": {"original": "q"}, "web": {"type": "search", "results": results}})


def brave_limit(remaining: str) -> Answer:
    """The 429 of Brave."""
    error = {"code": "RATE_LIMITED", "detail": "Request rate limit exceeded for plan.", "status": 429}
    headers = {"x-ratelimit-limit": "1, 15000", "x-ratelimit-remaining": remaining, "x-ratelimit-reset": "1, 1419704"}
    return Answer(429, {"type": "ErrorResponse", "error": error}, headers=headers)


def searxng(vendors: Vendors, asked: Asked, rest: str) -> Answer:
    """docs.searxng.org/dev/search_api.html"""
    if rest != "search" or asked.query.get("format") != "json":
        return Answer(200, "<html>", "text/html")
    results = [
        {"url": vendors.address(n), "title": f"Result {n}", "content": f"Snippet {n}.", "engine": "x", "score": 1.0}
        for n in range(vendors.results)
    ]
    return Answer(200, {"query": asked.query["q"], "results": results, "unresponsive_engines": []})


def jina(vendors: Vendors, asked: Asked, rest: str) -> Answer:
    """github.com/jina-ai/reader"""
    if asked.headers.get("authorization") not in (None, f"Bearer {KEY}"):
        error = {"data": None, "code": 401, "name": "AuthenticationFailedError", "status": 40102}
        return Answer(401, {**error, "message": "Invalid bearer token"})
    number = asked.body["url"].rpartition("/")[2]
    found = vendors.pages.get(number)
    if found is None or found.status != 200:
        return Answer(422, {"data": None, "code": 422, "name": "AssertionFailureError", "message": "Failed to goto"})
    content = f"Title of page {number}\n\n{FACT}\nSomething else entirely."
    data = {"title": f"Page {number}", "url": asked.body["url"], "content": content, "usage": {"tokens": 2_000}}
    return Answer(200, {"code": 200, "status": 20000, "data": data})


def completions(vendors: Vendors, asked: Asked, rest: str) -> Answer:
    """OpenAI's chat completions."""
    if asked.headers.get("authorization") != f"Bearer {KEY}":
        error = {"message": f"Incorrect API key provided: {asked.headers.get('authorization')}", "type": "x"}
        return Answer(401, {"error": {**error, "code": "invalid_api_key"}})
    content = "Yes" if str(asked.body["model"]).startswith("judge") else f"In short: {FACT}"
    message = {"role": "assistant", "content": f"<think>hm</think>{content}"}
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return Answer(200, {"model": f"{asked.body['model']}-2026-01-01", "choices": choices, "usage": usage})


_ANSWERS: dict[str, Callable[[Vendors, Asked, str], Answer]] = {
    "page": web_page,
    "serpapi": serpapi,
    "brave": brave,
    "searxng": searxng,
    "jina": jina,
    "v1": completions,
    "thumbnail": thumbnail,
}
