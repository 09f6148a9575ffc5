"""Removes secrets from an answer before it is read, recorded or shown.

A search result may hold a signed address, and a careless server may repeat the key that it was sent. What is removed
here is absent from observations as well as from recordings, so a replay reads exactly what the first run read. Parameters
of addresses are known by their names, as they are written in JSON, in HTML and inside another address; parameters with
these names that hold no secret are removed, too. Not removed: what is encoded twice, and secrets in headers and prose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MIN_SECRET = 8
"""Bytes; a shorter key would be found in ordinary text."""
PIECE = 1 << 18
"""Bytes that are searched at once: a search holds the interpreter lock, and with it every thread that has a deadline."""
_LONGEST = 300
"""Bytes; what _SECRET matches is shorter, so that it lies whole within a piece and as many bytes after it."""
_BEFORE = rb"[?&;#]|\\u0026|%(?:26|3F|3B|23)"
"""What is before a parameter; the semicolon also as the end of &amp;."""
_NAMES = (
    rb"(?:api|access|subscription|ocp-apim-subscription)[_-]?key|key|awsaccesskeyid"
    rb"|(?:(?:access|id|refresh|auth)_?)?token|(?:client_?)?secret|sig(?:nature)?|auth|passw(?:or)?d"
    rb"|x-(?:amz|goog)-(?:signature|credential|security-token)"
)
_SECRET = re.compile(
    rb"(?:" + _BEFORE + rb")(?:" + _NAMES + rb")(?:=|\\u003d|(?P<encoded>%3D))"
    rb"|(?P<user>//|\\/\\/)[^/?#@\"'\s<>\\]{1,256}@",
    re.IGNORECASE,
)
"""The beginning of a parameter with a secret, up to its value; or the user and password of an address."""
_NEEDED = (b"=", b"%3", b"\\u003", b"@"), (b"?", b"&", b";", b"#", b"\\u0026", b"%", b"@")
"""Without one of each a piece holds no secret; a search for them is much faster than for the pattern."""
_END, _ENCODED_END = (re.compile(rb"[&;\"'\s<>\\#]" + more) for more in (b"", rb"|%(?:26|3B|23)"))
"""What ends a value, and one in an address that is a parameter itself."""
_REMOVED = b"[redacted]"


def redact(answer: bytes, secrets: Iterable[str] = ()) -> bytes:
    r"""An answer without these secrets, and without the secret parameters and passwords of addresses in it.

    >>> redact(b'{"url": "https://me:pw@x.org/?q=ring&api_key=12ab&hl=en"}')
    b'{"url": "https://[redacted]@x.org/?q=ring&api_key=[redacted]&hl=en"}'
    """
    for secret in secrets:
        if len(secret) >= MIN_SECRET:
            answer = answer.replace(secret.encode(), _REMOVED)
    return b"".join(_redacted(answer))


def _redacted(answer: bytes) -> Iterator[bytes]:
    """The parts of an answer, with what takes the place of secrets."""
    done = 0
    for start, end in _secrets(answer):
        yield answer[done:start]
        yield _REMOVED
        done = end
    yield answer[done:]


def _secrets(answer: bytes) -> Iterator[tuple[int, int]]:
    """Where the secrets of an answer begin and end."""
    start = 0
    while start < len(answer):
        end = start + PIECE
        if all(any(answer.find(each, start, end + _LONGEST) >= 0 for each in group) for group in _NEEDED):
            while start < end and (found := _SECRET.search(answer, start, end + _LONGEST)) is not None:
                begin, start = _span(answer, found)
                if start > begin:
                    yield begin, start
        start = max(start, end)


def _span(answer: bytes, found: re.Match[bytes]) -> tuple[int, int]:
    """Where the secret of a match begins and ends: user and password, or the value."""
    if found["user"] is not None:
        return found.end("user"), found.end() - 1
    ends, end = _END if found["encoded"] is None else _ENCODED_END, found.end()
    while end < len(answer):
        after = ends.search(answer, end, end + PIECE + _LONGEST)
        if after is not None:
            return found.end(), after.start()
        end += PIECE
    return found.end(), len(answer)
