"""Alignment of a turn's text with its tokens, so that text can be coloured by log-probability.

A trajectory contains token ids; their texts come from the model's tokenizer.json. Its vocabulary is enough, because the
text is known: each token must match what comes next. If one does not (another model's vocabulary, a split character),
the turn is not aligned and the page shows cells instead of text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gog.errors import UserError
from gog.trajectory import Trajectory


def _bytes_by_sign() -> dict[str, int]:
    """Characters that represent bytes in byte-level vocabularies: printable bytes themselves, others from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + n): byte for n, byte in enumerate(others)}}


class Vocabulary:
    """Texts of tokens by id. byte_level: whether texts use the byte-level representation."""

    def __init__(self, texts: dict[int, str], byte_level: bool) -> None:
        self.texts, self._signs = texts, _bytes_by_sign() if byte_level else None

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Reads a tokenizer.json, or the one in a model folder. Raises UserError."""
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            found: Any = json.loads(path.read_bytes())
            table = {int(number): str(text) for text, number in found["model"]["vocab"].items()}
            added = {int(each["id"]): str(each["content"]) for each in found.get("added_tokens") or ()}
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not a tokenizer.json with a vocabulary: {error}", where=str(path)) from None
        return cls({**table, **added}, byte_level="ByteLevel" in json.dumps(found.get("decoder")))

    def name_tokens(self, turns: Sequence[dict[str, Any]], item: Trajectory) -> None:
        """Adds `pieces` to each turn that can be aligned: one text per token with a log-probability."""
        written = [segment for segment in item.segments if segment.source == "model"]
        for shown, turn, segment in zip(turns, item.turns, written):
            pieces = self.pieces(segment.tokens, turn.text)
            if pieces and shown.get("logprobs"):
                shown["pieces"] = pieces[: len(shown["logprobs"])]

    def pieces(self, tokens: Sequence[int], text: str) -> list[str] | None:
        """The text split into one piece per token; None when the tokens do not match. A final end token may have no text.

        >>> Vocabulary({1: "look", 2: "here"}, False).pieces([1, 2], "look here")
        ['look', ' here']
        """
        data, place = text.encode(), 0
        pieces: list[str] = []
        for left, token in zip(range(len(tokens), 0, -1), tokens):
            wanted = self._bytes(token)
            if wanted is None:
                return None
            start = place
            if not data.startswith(wanted, place):
                place += len(data[place:]) - len(data[place:].lstrip())
                if not data.startswith(wanted, place) or not wanted:
                    ends = left == 1 and place >= len(data) and wanted.startswith(b"<") and wanted.endswith(b">")
                    return [*pieces, ""] if ends else None
            place += len(wanted)
            pieces.append(data[start:place].decode("utf-8", "replace"))
        return pieces if not data[place:].strip() else None

    def _bytes(self, token: int) -> bytes | None:
        text = self.texts.get(token)
        if text is None or self._signs is None or any(sign not in self._signs for sign in text):
            return None if text is None else text.encode()
        return bytes(self._signs[sign] for sign in text)
