"""The two search servers: `image` finds pages by an image, `text` by words.

Plain JSON over HTTP (gog.tool_api), so that an adapter of a real search speaks the same. Images are decoded and queries
answered in a thread, in batches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastapi import Request, Response

from gog import tool_api
from gog.images import Image
from gog_tools.search.backend import Found, ImageSearch, TextSearch
from gog_tools.serving import backend_calls, backends, errors, http_json, inputs, process
from gog_tools.serving.failures import App

KINDS = ("image", "text")


def image_application(backend: ImageSearch) -> App:
    """The image search server's application."""

    def work(requests: Sequence[tool_api.ImageSearchRequest]) -> list[Response | Exception]:
        """One batch, in a thread."""
        return backend_calls.with_images(requests, found)

    def found(requests: Sequence[tool_api.ImageSearchRequest], images: Sequence[Image]) -> list[Response | Exception]:
        tops = [request.top for request in requests]
        return [_response(each, top) for each, top in zip(backend.search(images, tops), tops, strict=True)]

    batches = backend_calls.batcher(backend, work)
    app = http_json.application("gog image search")

    @app.post(tool_api.IMAGE_SEARCH_PATH)
    async def search(request: Request) -> Response:
        return await backend_calls.answer(batches, await http_json.read(request, tool_api.ImageSearchRequest))

    return app


def text_application(backend: TextSearch) -> App:
    """The text search server's application."""

    def work(requests: Sequence[tool_api.TextSearchRequest]) -> list[Response | Exception]:
        """One batch, in a thread."""
        found = backend.search([each.query for each in requests], [each.top for each in requests])
        return [_response(each, request.top) for each, request in zip(found, requests, strict=True)]

    batches = backend_calls.batcher(backend, work)
    app = http_json.application("gog text search")

    @app.post(tool_api.TEXT_SEARCH_PATH)
    async def search(request: Request) -> Response:
        return await backend_calls.answer(batches, await http_json.read(request, tool_api.TextSearchRequest))

    return app


def _response(found: Found, top: int) -> Response | Exception:
    """The answer for a back end's result, or the fault in it."""
    try:
        backend_calls.finite(*(hit.score for hit in found.hits))
        charge = errors.Charge(found.cost_usd, found.credit_usd, found.vendor, found.calls, found.pages)
        return http_json.reply(tool_api.SearchResponse(hits=list(found.hits[:top])), headers=charge.headers)
    except (ValueError, TypeError, AttributeError) as error:
        return error


def build_image(args: argparse.Namespace) -> App:
    """The image search. Raises UserError for a back end that cannot be created."""
    resources = inputs.resources(args)
    return image_application(backends.load("image-search", args.backend, args.options, ImageSearch, resources))


def build_text(args: argparse.Namespace) -> App:
    """The text search. Raises UserError for a back end that cannot be created."""
    resources = inputs.resources(args)
    return text_application(backends.load("text-search", args.backend, args.options, TextSearch, resources))


def main(argv: list[str]) -> int:
    """`gog serve image-search` and `gog serve text-search`: argv begins with `image` or `text`. Returns the exit code."""
    kind, rest = (argv[0], argv[1:]) if argv else ("", [])
    if kind not in KINDS:
        print(f"gog serve: unknown search {kind!r} (give one of {', '.join(KINDS)})", file=sys.stderr)
        return 2
    options = process.parser(f"{kind}-search", f"Search of pages by {'an image' if kind == 'image' else 'words'}.")
    backends.add_arguments(options, f"{kind}-search")
    return process.main(f"{kind}-search", options, rest, build_image if kind == "image" else build_text)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
