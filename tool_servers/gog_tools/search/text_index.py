"""Full-text search over a corpus of pages: what a web text search is to the embedded world.

Tantivy in memory, BM25 over titles and texts, titles counting more; pages whose title is the query come first.
Queries are what a model wrote, so they are never parsed as a query language: words are taken out of them and looked
up, whatever else they contain.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tantivy

from gog import dataset, judging, tool_api
from gog.errors import UserError

CORPUS = "corpus.jsonl"
TITLE_BOOST = 3.0
MAX_WORDS = 64
"""Of a query; further ones are not looked up."""
WRITER_BYTES = 20_000_000


class TextIndex:
    """documents by row; searched by words."""

    def __init__(self, documents: Sequence[dataset.Document]) -> None:
        self.documents = documents
        self.titles: dict[str, list[int]] = {}
        for row, document in enumerate(documents):
            self.titles.setdefault(judging.normalise(document.title), []).append(row)
        self.schema = _schema()
        self.searcher = _fill(self.schema, documents).searcher()

    @classmethod
    def read(cls, folder: Path) -> TextIndex:
        """The corpus of a dataset folder. Raises UserError for a missing, empty or broken one."""
        path = folder / CORPUS
        documents = list(dataset.read_lines(path, dataset.Document))
        if not documents:
            raise UserError("no pages", where=str(path), remedy="give at least one line")
        return cls(documents)

    def search(self, query: str, top: int) -> list[tool_api.SearchHit]:
        """At most `top` pages, best first; none when no word is found."""
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
            clauses.append((tantivy.Occur.Should, tantivy.Query.boost_query(title, TITLE_BOOST)))
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
    """Distinct words as tantivy's tokenizer cuts them: letters and digits, lower case."""
    words = "".join(char if char.isalnum() else " " for char in query.lower()).split()
    return list(dict.fromkeys(words))[:MAX_WORDS]
