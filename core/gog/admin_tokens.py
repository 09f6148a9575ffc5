"""Tokens of those who may change which adapters a policy server serves.

A server knows only the digest of its token, so its configuration holds no secret. It reads the digest for every request,
because a restarted control plane may have another key, and compares it in constant time. The token has 256 random bits, so
that its digest needs no salt.
"""

from __future__ import annotations

import hashlib
import hmac

SCHEME = "Bearer "


def token(key: bytes, owner: str) -> str:
    """The token of one server.

    Args:
        key: Key of the control plane, at least 32 random bytes.
        owner: What the token is for, such as the server's namespace, name and uid. No other owner has the same token.
    """
    return hmac.new(key, owner.encode(), hashlib.sha256).hexdigest()


def digest(token: str) -> str:
    """What a server knows of its token: 64 hexadecimal digits."""
    return hashlib.sha256(token.encode()).hexdigest()


def matches(authorization: str, expected: str) -> bool:
    """Whether a request's Authorization header holds the token of a digest. An empty digest is matched by nothing."""
    given = digest(authorization.removeprefix(SCHEME)) if authorization.startswith(SCHEME) else ""
    return hmac.compare_digest(given, expected.strip() or "none")
