"""A dataset is a folder: questions as JSON lines, images beside them.

    train.jsonl, test.jsonl     one question a line
    images/<anything>.png       named by the lines
    index/images.jsonl          optional: images that gog's own image search finds
    corpus.jsonl                optional: pages that gog's own text search finds

The embedded world is written in this form. Files of other projects are read by a reader of their format
(`gog.dataset.formats`, one file each) and converted to such a folder, so stages, servers and stores know one form only.
A line or image that a run cannot use is reported by file and line before anything starts (`check`).
"""

from gog.dataset.checks import check
from gog.dataset.convert import as_folder
from gog.dataset.digest import digest
from gog.dataset.jsonl import read_lines, write_lines
from gog.dataset.questions import files, read_questions, splits
from gog.dataset.records import CORPUS, INDEX, Document, Evidence, IndexedImage, Question

__all__ = [
    "CORPUS",
    "INDEX",
    "Document",
    "Evidence",
    "IndexedImage",
    "Question",
    "as_folder",
    "check",
    "digest",
    "files",
    "read_lines",
    "read_questions",
    "splits",
    "write_lines",
]
