"""Removes secrets from an answer before it is read, recorded or shown.

A search result may hold a signed address, and a careless server may repeat the key that it was sent. What is removed
here is absent from observations as well as from recordings, so a replay reads exactly what the first run read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MIN_SECRET = 8
"""Bytes; a shorter key would be found in ordinary text."""
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
    if b"=" in answer and (b"?" in answer or b"&" in answer or b"\\u0026" in answer):
        answer = _PARAMETER.sub(rb"\1[redacted]", answer)
    return answer
