"""Names of children: told from their parent's, and short enough for everything made of them.

A pod is called `<object>-a<attempt>-trainer-<replica>-0` and a label holds 63 characters, which leaves 45 for the
object. Longer names are cut and end in a hash of the whole, so that two never meet.
"""

from __future__ import annotations

import hashlib
import re

LIMIT = 45


def child(parent: str, suffix: str) -> str:
    return bounded(f"{parent}-{suffix}")


def bounded(name: str, limit: int = LIMIT) -> str:
    if len(name) <= limit:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[: limit - 9].rstrip('-')}-{digest}"


def kebab(role: str) -> str:
    """imageSearch -> image-search"""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", role).lower()
