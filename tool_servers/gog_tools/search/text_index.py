"""The back end `world` of text search: full-text search over the pages of a dataset's corpus.

Tantivy in memory, BM25 over titles and texts, with more weight on titles; pages whose title is the query come first.
Queries are what a model wrote, so they are never parsed as a query language: their words are looked up one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tantivy
from pydantic import Field

from gog import dataset, judging, tool_api
from gog.errors import UserError
from gog_tools.search.backend import Found

MAX_WORDS = 64
"""Most distinct words of a query that are looked up."""
WRITER_BYTES = 20_000_000
"""Memory of tantivy's writer while the index is built."""


class TextIndex:
    """A TextSearch over documents in memory."""

    def __init__(self, documents: Sequence[dataset.Document], *, title_boost: float = 3.0) -> None:
        """Indexes documents. title_boost: weight of a word in a title; a word in a text has 1."""
        self.documents, self.title_boost = documents, title_boost
        self.titles: dict[str, list[int]] = {}
        for row, document in enumerate(documents):
            self.titles.setdefault(judging.normalise(document.title), []).append(row)
        self.schema = _schema()
        self.searcher = _fill(self.schema, documents).searcher()

    @classmethod
    def read(cls, data: Path, *, title_boost: Annotated[float, Field(ge=0, le=1_000)] = 3.0) -> TextIndex:
        """The index of a dataset folder. Raises UserError for a missing, empty or broken corpus."""
        path = data / dataset.CORPUS
        documents = list(dataset.read_lines(path, dataset.Document))
        if not documents:
            raise UserError("no pages", where=str(path), remedy="give at least one line")
        return cls(documents, title_boost=title_boost)

    def search(self, queries: Sequence[str], tops: Sequence[int]) -> list[Found]:
        """The best pages for each query; none when no word is found."""
        return [Found(self._pages(query, top)) for query, top in zip(queries, tops, strict=True)]

    def _pages(self, query: str, top: int) -> list[tool_api.SearchHit]:
        words = _words(query)
        if not words:
            return []
        found = self.searcher.search(self._any_of(words), top)
        scores = {self.searcher.doc(address)["row"][0]: score for score, address in found.hits}
        exact = self.titles.get(judging.normalise(query), [])
        rows = [*exact, *(row for row in scores if row not in exact)][:top]
        best = max(scores.values(), default=1.0)
        return [self._hit(row, best if row in exact else scores[row]) for row in rows]

    def _any_of(self, words: Sequence[str]) -> tantivy.Query:
        clauses = []
        for word in words:
            title = tantivy.Query.term_query(self.schema, "title", word)
            clauses.append((tantivy.Occur.Should, tantivy.Query.boost_query(title, self.title_boost)))
            clauses.append((tantivy.Occur.Should, tantivy.Query.term_query(self.schema, "text", word)))
        return tantivy.Query.boolean_query(clauses)

    def _hit(self, row: int, score: float) -> tool_api.SearchHit:
        document = self.documents[row]
        return tool_api.SearchHit(title=document.title, url=document.url, text=document.text, score=round(score, 4))


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("title")
    builder.add_text_field("text")
    builder.add_integer_field("row", stored=True)
    return builder.build()


def _fill(schema: tantivy.Schema, documents: Sequence[dataset.Document]) -> tantivy.Index:
    index = tantivy.Index(schema)
    writer = index.writer(heap_size=WRITER_BYTES, num_threads=1)
    for row, document in enumerate(documents):
        writer.add_document(tantivy.Document(title=document.title, text=document.text, row=row))
    writer.commit()
    index.reload()
    return index


def _words(query: str) -> list[str]:
    """Distinct words of a query as tantivy's tokenizer splits them: letters and digits, lower case."""
    words = "".join(char if char.isalnum() else " " for char in query.lower()).split()
    return list(dict.fromkeys(words))[:MAX_WORDS]
