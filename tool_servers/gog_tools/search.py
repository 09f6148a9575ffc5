"""The two searches of the embedded world as servers: `image` over the dataset's index, `text` over its corpus.

Plain JSON over HTTP in the wire formats that adapters of real searches speak as well. Pictures are decoded and
compared in a thread, in batches; text queries take a fraction of a millisecond and are answered in place.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastapi import Request, Response

from gog import wire
from gog.errors import UserError
from gog_tools import bodies, serving, sources
from gog_tools.batching import MicroBatcher
from gog_tools.failures import App
from gog_tools.image_index import ImageIndex, Looks, looks
from gog_tools.text_index import TextIndex

KINDS = ("image", "text")


def image_application(index: ImageIndex) -> App:
    def work(requests: Sequence[wire.ImageSearchRequest]) -> list[list[wire.SearchHit] | Exception]:
        queries = [_read_looks(request) for request in requests]
        readable = [[] if isinstance(query, UserError) else query for query in queries]
        found = index.search(readable, [request.top for request in requests])
        return [query if isinstance(query, UserError) else hits for query, hits in zip(queries, found, strict=True)]

    batches: MicroBatcher[wire.ImageSearchRequest, list[wire.SearchHit]] = MicroBatcher(work, max_wait=0.0)
    app = bodies.application("gog image search")

    @app.post(wire.IMAGE_SEARCH_PATH)
    async def search(request: Request) -> Response:
        asked = await bodies.read(request, wire.ImageSearchRequest)
        return bodies.reply(wire.SearchResponse(hits=await batches.submit(asked)))

    return app


def _read_looks(request: wire.ImageSearchRequest) -> Looks | UserError:
    """What the query shows, or the reason why it cannot be read."""
    try:
        return looks(wire.decode_image(request.image))
    except UserError as error:
        return error


def text_application(index: TextIndex) -> App:
    app = bodies.application("gog text search")

    @app.post(wire.TEXT_SEARCH_PATH)
    async def search(request: Request) -> Response:
        asked = await bodies.read(request, wire.TextSearchRequest)
        return bodies.reply(wire.SearchResponse(hits=index.search(asked.query, asked.top)))

    return app


def build_image(given: argparse.Namespace) -> App:
    return image_application(ImageIndex.read(sources.dataset(given.data, given)))


def build_text(given: argparse.Namespace) -> App:
    return text_application(TextIndex.read(sources.dataset(given.data, given)))


def main(argv: list[str]) -> int:
    """`gog serve image-search` and `gog serve text-search`: argv begins with `image` or `text`. Returns the exit code."""
    kind, rest = (argv[0], argv[1:]) if argv else ("", [])
    if kind not in KINDS:
        print(f"gog serve: which search? give one of {', '.join(KINDS)} (got {kind!r})", file=sys.stderr)
        return 2
    what = "pictures of the dataset's index" if kind == "image" else "pages of the dataset's corpus"
    options = serving.parser(f"{kind}-search", f"Search over the {what}.")
    options.add_argument("--backend", default="world", choices=("world",), help="the only one so far")
    options.add_argument("--data", required=True, help="dataset: a folder, or an s3:// address of the store")
    return serving.main(f"{kind}-search", options, rest, build_image if kind == "image" else build_text)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
