"""JSON files of a model folder: read whole, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gog import tensors
from gog.errors import UserError

CONFIG = "config.json"
FORM = "name a folder in Hugging Face form"
AGAIN = "fetch it again"


def read(path: Path, folder: Path, where: str) -> dict[str, Any]:
    """The object in a file that must exist.

    Args:
        path: the file
        folder: the model's folder, for messages
        where: what the folder was named by

    Raises:
        UserError: the file is missing, a Git LFS pointer or not JSON.
    """
    try:
        return _parsed(path)
    except OSError:
        raise UserError(f"no {path.name} in {folder}", where=where, remedy=FORM) from None


def optional(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no file. Raises UserError for a pointer and for what is not JSON."""
    try:
        return _parsed(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _parsed(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    tensors.refuse_pointer(data, path)
    if not data:
        raise UserError("is empty", where=str(path), remedy=AGAIN)
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        raise UserError("is not valid JSON", where=str(path), remedy=AGAIN) from None
    if not isinstance(parsed, dict):
        raise UserError("is not a JSON object", where=str(path), remedy=AGAIN)
    return parsed
