"""The two searches of the embedded world as servers: `image` over the dataset's index, `text` over its corpus.

Plain JSON over HTTP in the wire formats that adapters of real searches speak as well. Images are decoded and
compared in a thread, in batches; text queries take a fraction of a millisecond and are answered in place.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastapi import Request, Response

from gog import tool_api
from gog.errors import UserError
from gog_tools.search.image_index import ImageIndex, Looks, looks
from gog_tools.search.text_index import TextIndex
from gog_tools.serving import http_json, inputs, process
from gog_tools.serving.batching import MicroBatcher
from gog_tools.serving.failures import App

KINDS = ("image", "text")


def image_application(index: ImageIndex) -> App:
    def work(requests: Sequence[tool_api.ImageSearchRequest]) -> list[list[tool_api.SearchHit] | Exception]:
        queries = [_read_looks(request) for request in requests]
        readable = [[] if isinstance(query, UserError) else query for query in queries]
        found = index.search(readable, [request.top for request in requests])
        return [query if isinstance(query, UserError) else hits for query, hits in zip(queries, found, strict=True)]

    batches: MicroBatcher[tool_api.ImageSearchRequest, list[tool_api.SearchHit]] = MicroBatcher(work, max_wait=0.0)
    app = http_json.application("gog image search")

    @app.post(tool_api.IMAGE_SEARCH_PATH)
    async def search(request: Request) -> Response:
        asked = await http_json.read(request, tool_api.ImageSearchRequest)
        return http_json.reply(tool_api.SearchResponse(hits=await batches.submit(asked)))

    return app


def _read_looks(request: tool_api.ImageSearchRequest) -> Looks | UserError:
    """What the query shows, or the reason why it cannot be read."""
    try:
        return looks(tool_api.decode_image(request.image))
    except UserError as error:
        return error


def text_application(index: TextIndex) -> App:
    app = http_json.application("gog text search")

    @app.post(tool_api.TEXT_SEARCH_PATH)
    async def search(request: Request) -> Response:
        asked = await http_json.read(request, tool_api.TextSearchRequest)
        return http_json.reply(tool_api.SearchResponse(hits=index.search(asked.query, asked.top)))

    return app


def build_image(given: argparse.Namespace) -> App:
    return image_application(ImageIndex.read(inputs.dataset(given.data, given)))


def build_text(given: argparse.Namespace) -> App:
    return text_application(TextIndex.read(inputs.dataset(given.data, given)))


def main(argv: list[str]) -> int:
    """`gog serve image-search` and `gog serve text-search`: argv begins with `image` or `text`. Returns the exit code."""
    kind, rest = (argv[0], argv[1:]) if argv else ("", [])
    if kind not in KINDS:
        print(f"gog serve: which search? give one of {', '.join(KINDS)} (got {kind!r})", file=sys.stderr)
        return 2
    what = "images of the dataset's index" if kind == "image" else "pages of the dataset's corpus"
    options = process.parser(f"{kind}-search", f"Search over the {what}.")
    options.add_argument("--backend", default="world", choices=("world",), help="the only one so far")
    options.add_argument("--data", required=True, help="dataset: a folder, or an s3:// address of the store")
    return process.main(f"{kind}-search", options, rest, build_image if kind == "image" else build_text)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
