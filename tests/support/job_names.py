"""Names of Volcano Jobs as tests write them: `world-sft-a1` for `world-sft-x7kd-a1`, whose mark depends on a random uid."""

from __future__ import annotations

import re

_MARKED = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{4}(?=-a\d+(-|$))")


def plain(name: str) -> str:
    """The name of a job, or of something named after it, without the stage's mark."""
    return _MARKED.sub("", name)
