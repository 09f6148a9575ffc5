"""Removes secrets from an answer before it is read, recorded or shown.

A search result may hold a signed address, and a careless server may repeat the key that it was sent. What is removed
here is absent from observations as well as from recordings, so a replay reads exactly what the first run read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MIN_SECRET = 8
"""Bytes; a shorter key would be found in ordinary text."""
PIECE = 1 << 20
"""Bytes that are searched at once: a search holds the interpreter lock, and with it every thread that has a deadline."""
_LONGEST_NAME = 32
"""Bytes; no parameter is longer, from its question mark to its value."""
_NAMES = (
    rb"api_?key|access_token|client_secret|signature|awsaccesskeyid"
    rb"|x-(?:amz|goog)-(?:signature|credential|security-token)"
)
_MARKS = tuple(bytes([mark]) for mark in b"\"&'<>\\# \n\r\t\f\v")
"""What ends a value. An answer is cut before one of these, which are neither within a parameter's name nor its value."""
_VALUE = re.compile(rb"[^&\"'\s<>\\#]+")
_PARAMETER = re.compile(rb"((?:[?&]|\\u0026)(?:" + _NAMES + rb")=)" + _VALUE.pattern, re.IGNORECASE)


def redact(answer: bytes, secrets: Iterable[str] = ()) -> bytes:
    r"""An answer without these secrets, and without the secret parameters of addresses in it.

    >>> redact(b'{"url": "https://x.org/?q=ring&api_key=12ab&hl=en"}')
    b'{"url": "https://x.org/?q=ring&api_key=[redacted]&hl=en"}'
    """
    for secret in secrets:
        if len(secret) >= MIN_SECRET:
            answer = answer.replace(secret.encode(), b"[redacted]")
    return b"".join(_redacted(answer)) if b"=" in answer else answer


def _redacted(answer: bytes) -> Iterator[bytes]:
    """The pieces of an answer without secret parameters. A value may go through several pieces to its end."""
    is_within_value = False
    for piece, has_end in _pieces(answer):
        rest = piece
        if is_within_value and (value := _VALUE.match(piece)) is not None:
            rest = piece[value.end() :]
        yield _without_parameters(rest)
        if has_end:
            is_within_value = False
        elif rest:  # without a mark, so that a parameter in it has not ended
            is_within_value = _PARAMETER.search(rest) is not None


def _without_parameters(piece: bytes) -> bytes:
    if b"=" in piece and (b"?" in piece or b"&" in piece or b"\\u0026" in piece):
        return _PARAMETER.sub(rb"\1[redacted]", piece)
    return piece


def _pieces(answer: bytes) -> Iterator[tuple[bytes, bool]]:
    """The parts of an answer, and whether each ends before a mark. One without a mark is not cut within a name."""
    start = 0
    while len(answer) - start > PIECE:
        end = start + PIECE
        mark = max(answer.rfind(each, start + 1, end) for each in _MARKS)
        if mark < 0:
            name = answer.rfind(b"?", max(start + 1, end - _LONGEST_NAME), end)
            end = name if name > 0 else end
        yield answer[start : mark if mark > 0 else end], mark > 0
        start = mark if mark > 0 else end
    yield answer[start:], True
