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
_NAMES = (
    rb"api_?key|access_token|client_secret|signature|awsaccesskeyid"
    rb"|x-(?:amz|goog)-(?:signature|credential|security-token)"
)
_PARAMETER = re.compile(rb"((?:[?&]|\\u0026)(?:" + _NAMES + rb")=)[^&\"'\s<>\\#]+", re.IGNORECASE)


def redact(answer: bytes, secrets: Iterable[str] = ()) -> bytes:
    r"""An answer without these secrets, and without the secret parameters of addresses in it.

    >>> redact(b'{"url": "https://x.org/?q=ring&api_key=12ab&hl=en"}')
    b'{"url": "https://x.org/?q=ring&api_key=[redacted]&hl=en"}'
    """
    for secret in secrets:
        if len(secret) >= MIN_SECRET:
            answer = answer.replace(secret.encode(), b"[redacted]")
    pieces = [_without_parameters(each) for each in _pieces(answer)] if b"=" in answer else [answer]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _without_parameters(piece: bytes) -> bytes:
    if b"=" in piece and (b"?" in piece or b"&" in piece or b"\\u0026" in piece):
        return _PARAMETER.sub(rb"\1[redacted]", piece)
    return piece


def _pieces(answer: bytes) -> Iterator[bytes]:
    """The parts of an answer, cut before quotation marks, which no address holds, where there are any."""
    start = 0
    while len(answer) - start > PIECE:
        mark = answer.rfind(b'"', start + 1, start + PIECE)
        end = mark if mark > 0 else start + PIECE
        yield answer[start:end]
        start = end
    yield answer[start:] if start else answer
