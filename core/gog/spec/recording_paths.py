"""What `tools.cache.path` may name: an SQLite file, one of a claim, or a prefix of a store.

A mistyped address would otherwise be the path of a file: SQLite would make `./s3:/bucket/answers`, which ends with a pod.
"""

from __future__ import annotations

import re

FIELD = "tools.cache.path"
PREFIX_FORM = r"^(s3://[^/]|file:///.)"
"""Beginnings of a store's prefix, as a regular expression of Python and of RE2."""
REMEDY = (
    "name a file, /answers.sqlite or pvc://claim/answers.sqlite, or a prefix of a store, s3://bucket/prefix or "
    "file:///folder"
)


def is_prefix(path: str) -> bool:
    """Whether a path is that of a store's prefix, below which each answer is an object."""
    return path.startswith(("s3://", "file://"))


def fault(path: str) -> str:
    """Why a path names no recording; empty if it may name one. The form of `pvc://` is checked where it is mounted."""
    if is_prefix(path):
        return "" if re.match(PREFIX_FORM, path) else "names no bucket or folder"
    if "://" in path:
        return "" if path.startswith("pvc://") else "is no address of recorded answers"
    return "names a folder, not a file" if path.endswith("/") else ""
