"""The back end `tantivy` of text search: full-text search over any folder of documents, offline.

Text, Markdown, HTML and JSON lines are read when the server starts, cut into passages, and indexed in a folder that lives
as long as the server. A result is the best passage of a document. Words are compared without case and accents, and scripts
without spaces by pairs of characters; there is no stemming. Queries are what a model wrote, so they are never parsed as a
query language. A change of the folder is seen by the next start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tantivy
from pydantic import Field

from gog import tool_api
from gog.errors import UserError
from gog_tools.fetch import html, summaries, text
from gog_tools.search.backend import Found
from gog_tools.serving import backends

WRITER_BYTES = 50_000_000
"""Memory of tantivy's writer while the index is built."""
MAX_FILE = 100_000_000
"""Bytes of a text, Markdown or HTML file. JSON lines may be longer, because they are read line by line."""
MAX_LINE = 10_000_000
"""Characters of a line of JSON lines."""
MAX_WORDS = 64
"""Most distinct words of a query that are looked up."""
MAX_TITLE = 200
_OVERSAMPLE = 4
"""Passages that are looked up for each result, because several may belong to one document."""
_PLAIN, _MARKDOWN, _HTML, _LINES = (".txt",), (".md", ".markdown"), (".html", ".htm"), (".jsonl",)
SUFFIXES = (*_PLAIN, *_MARKDOWN, *_HTML, *_LINES)


@dataclass(frozen=True)
class Document:
    """A document of a folder."""

    title: str
    """Its title."""
    url: str
    """Its address, or its path below the folder."""
    text: str = field(repr=False)
    """All of its text."""


class Documents:
    """A TextSearch over an index in a folder."""

    def __init__(self, index: tantivy.Index, *, title_boost: float) -> None:
        """index: as `build` made it; title_boost: weight of a word in a title, where one in a text has 1."""
        self._schema, self._boost = index.schema, title_boost
        self._searcher = index.searcher()

    @classmethod
    def open(
        cls,
        scratch: Path,
        documents: backends.LocalPath,
        *,
        title_boost: Annotated[float, Field(ge=0, le=1_000)] = 3.0,
        passage: Annotated[int, Field(ge=100, le=10_000)] = 1_200,
    ) -> Documents:
        """Indexes a folder.

        Args:
            scratch: an empty folder, for the index.
            documents: folder of the documents, at any depth; links and hidden files are left out.
            title_boost: weight of a word in a title, where one in a text has 1.
            passage: most characters of a passage.

        Raises:
            UserError: the folder is missing or holds no documents, or a file cannot be read.
        """
        found = read_folder(Path(documents))
        return cls(build(found, scratch, passage, where=documents), title_boost=title_boost)

    def search(self, queries: Sequence[str], tops: Sequence[int]) -> list[Found]:
        """The best passages of the best documents for each query; none when no word is found."""
        return [Found(self._hits(query, top)) for query, top in zip(queries, tops, strict=True)]

    def _hits(self, query: str, top: int) -> list[tool_api.SearchHit]:
        words = list(dict.fromkeys(summaries.terms(query)))[:MAX_WORDS]
        if not words:
            return []
        best: dict[str, tool_api.SearchHit] = {}
        for score, address in self._searcher.search(self._any_of(words), top * _OVERSAMPLE).hits:
            stored = json.loads(self._searcher.doc(address)["stored"][0])
            hit = tool_api.SearchHit(
                title=stored["title"], url=stored["url"], text=stored["text"], score=round(float(score), 4)
            )
            best.setdefault(stored["document"], hit)
        return list(best.values())[:top]

    def _any_of(self, words: Sequence[str]) -> tantivy.Query:
        clauses = []
        for word in words:
            title = tantivy.Query.term_query(self._schema, "title", word)
            clauses.append((tantivy.Occur.Should, tantivy.Query.boost_query(title, self._boost)))
            clauses.append((tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "text", word)))
        return tantivy.Query.boolean_query(clauses)


def build(documents: Iterator[Document], target: Path, passage: int, *, where: str) -> tantivy.Index:
    """An index of documents in an empty folder. where: for messages. Raises UserError if there are none."""
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("title", index_option="freq")
    builder.add_text_field("text", index_option="freq")
    builder.add_bytes_field("stored", stored=True, indexed=False)
    index = tantivy.Index(builder.build(), path=str(target))
    writer = index.writer(heap_size=WRITER_BYTES, num_threads=1)
    number = 0
    for number, document in enumerate(documents, 1):
        title = text.clean(document.title, MAX_TITLE)
        for piece in passages(document.text, passage):
            shown = text.clean(piece, passage)
            stored = {"document": str(number), "title": title, "url": document.url, "text": shown}
            # The index sees words as `terms` cuts them, so that queries and texts are cut alike.
            words = (" ".join(summaries.terms(each)) for each in (title, shown))
            writer.add_document(
                tantivy.Document(**dict(zip(("title", "text"), words)), stored=json.dumps(stored).encode())
            )
    if number == 0:
        remedy = f"put files into it whose names end with {', '.join(SUFFIXES)}"
        raise UserError("no documents", where=where, remedy=remedy)
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    return index


def passages(whole: str, size: int) -> Iterator[str]:
    """A text in pieces of at most `size` characters, cut between paragraphs, sentences or words where possible.

    >>> list(passages("One two. Three four.", 10))
    ['One two.', 'Three', 'four.']
    """
    left = whole.strip()
    while len(left) > size:
        window = left[: size + 1]
        cut = next((at + 1 for mark in ("\n\n", "\n", ". ", "。", " ") if (at := window.rfind(mark)) > size // 2), size)
        yield left[:cut].strip()
        left = left[cut:].strip()
    if left or not whole.strip():
        yield left


def read_folder(folder: Path) -> Iterator[Document]:
    """The documents of a folder, in the order of their paths. Raises UserError."""
    if not folder.is_dir():
        raise UserError("no such folder", where=f"--options documents: {folder}", remedy="name a folder of documents")
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.is_symlink() or not path.is_file() or path.suffix.lower() not in SUFFIXES:
            continue
        if not path.resolve().is_relative_to(folder.resolve()):  # below a linked folder
            continue
        yield from _documents(path, str(path.relative_to(folder)))


def _documents(path: Path, name: str) -> Iterator[Document]:
    suffix = path.suffix.lower()
    try:
        if suffix in _LINES:
            yield from _lines(path, name)
            return
        if path.stat().st_size > MAX_FILE:
            raise UserError(
                f"a document of more than {MAX_FILE:,} bytes", where=str(path), remedy="split it, or use .jsonl"
            )
        body = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=str(path)) from None
    if suffix in _HTML:
        page = html.read(body, limit=MAX_FILE)
        yield Document(page.title or path.stem, name, page.text)
        return
    words = body.decode("utf-8", "replace").removeprefix("\ufeff")
    heading = next((line.lstrip("# ") for line in words.splitlines()[:20] if line.startswith("# ")), "")
    yield Document(heading if suffix in _MARKDOWN and heading else path.stem.replace("_", " "), name, words)


def _lines(path: Path, name: str) -> Iterator[Document]:
    """Documents of JSON lines: objects with `text` (or `contents`, whose first line is the title), `title`, `url`."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE + 1), ""), 1):
            where = f"{path}:{number}"
            if len(line) > MAX_LINE:
                raise UserError(
                    f"a line of more than {MAX_LINE:,} characters", where=where, remedy="split the document"
                )
            if line.strip():
                yield _of_line(_parsed(line, where), f"{name}#{number}", where)


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}", where=where, remedy="write one object on each line") from None
    if not isinstance(value, dict):
        raise UserError(f"a {type(value).__name__}, not an object", where=where, remedy="write one object on each line")
    return value


def _of_line(value: dict[str, Any], name: str, where: str) -> Document:
    title, words = value.get("title"), value.get("text")
    if words is None and isinstance(value.get("contents"), str):
        first, _, rest = value["contents"].partition("\n")
        title, words = title or first.strip(' "'), rest or first
    if not isinstance(words, str) or not isinstance(title, str | None):
        raise UserError("no text", where=where, remedy='write {"title": "…", "text": "…", "url": "…"}')
    url = value.get("url")
    return Document(title or words[:80], text.clean_url(url) if isinstance(url, str) and url else name, words)
