"""The tokenizer of a model folder: whole, with the tokens of prompts and images at the ids of config.json.

A folder without its tokenizer, or with that of another model, would be trained on ids that mean something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gog import prompts, tensors
from gog.base_model import architectures, json_file
from gog.errors import UserError

FILE, VOCABULARY, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
REQUIRED = ("<|endoftext|>", "<|im_start|>", prompts.TURN_END, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
"""Single tokens that prompts are made of."""
REMEDY = "fetch the tokenizer of the base model"


def check(folder: Path, config: Mapping[str, Any], architecture: architectures.Architecture | None, where: str) -> None:
    """Whether a folder's tokenizer can be read and is that of its configuration.

    Args:
        folder: in Hugging Face form
        config: its config.json
        architecture: of the model; None if its tokens are not known
        where: what the folder was named by

    Raises:
        UserError: naming the file, or the token.
    """
    path, ids = read(folder, where)
    size = architectures.text_of(config).get("vocab_size")
    last = max(ids.values(), default=-1)
    if isinstance(size, int) and last >= size:
        raise UserError(f"has token id {last}, the embedding {size} rows", where=str(path), remedy=REMEDY)
    if architecture is None:
        return
    for token in REQUIRED:
        if token not in ids:
            raise UserError(f"its tokenizer has no token {token}", where=str(folder), remedy=REMEDY)
    for field, (token, default) in architecture.tokens.items():
        given = config.get(field, default)
        if token in ids and ids[token] != given:
            raise UserError(
                f"{field} is {given}, but the tokenizer has {token} at {ids[token]}",
                where=str(folder / json_file.CONFIG),
                remedy=REMEDY,
            )


def read(folder: Path, where: str) -> tuple[Path, dict[str, int]]:
    """The tokenizer's file, and the id of each of its tokens. Raises UserError for one that is missing or not whole."""
    if (folder / FILE).is_file():
        found = _of_tokenizer(json_file.read(folder / FILE, folder, where))
        path = folder / FILE
    elif (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
        _check_merges(folder / MERGES)
        found = _of_vocabulary(folder, where)
        path = folder / VOCABULARY
    else:
        raise UserError(
            f"no tokenizer in {folder}", where=where, remedy=f"it needs {FILE} or {VOCABULARY} and {MERGES}"
        )
    if not found or not all(type(number) is int for number in found.values()):
        raise UserError("is not a tokenizer with a vocabulary", where=str(path), remedy=json_file.AGAIN)
    return path, found


def _of_tokenizer(parsed: dict[str, Any]) -> dict[str, int]:
    model, added = parsed.get("model"), parsed.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    found = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict):
            found[str(token.get("content"))] = token.get("id")
    return found


def _of_vocabulary(folder: Path, where: str) -> dict[str, int]:
    found = dict(json_file.read(folder / VOCABULARY, folder, where))
    decoder = json_file.optional(folder / "tokenizer_config.json").get("added_tokens_decoder")
    for number, token in (decoder if isinstance(decoder, dict) else {}).items():
        if str(number).isdecimal() and isinstance(token, dict):
            found[str(token.get("content"))] = int(number)
    return found | json_file.optional(folder / "added_tokens.json")


def _check_merges(path: Path) -> None:
    with path.open("rb") as stream:
        first = stream.read(len(tensors.LFS_POINTER))
    tensors.refuse_pointer(first, path)
    if not first:
        raise UserError("is empty", where=str(path), remedy=json_file.AGAIN)
