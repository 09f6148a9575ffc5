"""The result of a store job: a JSON object in the pod's termination message.

The message holds at most 4096 bytes, so lists and then texts are shortened before Kubernetes would cut the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLACE = "GOG_TERMINATION_LOG"
"""Environment variable with the path of the message's file; not set outside of pods."""
LIMIT = 4096
"""Maximum bytes of a message."""
MAX_TEXT = 2_000
"""Maximum characters of a text in a message: those of the summary of a check of tools (gog.tool_check.report)."""


def leave(result: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Returns the message, and writes it to its file in a pod."""
    text = shortened(result)
    if environment.get(PLACE):
        Path(environment[PLACE]).write_text(text, encoding="utf-8")
    return text


def shortened(result: Mapping[str, Any]) -> str:
    """The result as JSON of at most LIMIT bytes: texts are cut, the ends of lists dropped, then the longest text is cut more."""
    shown = {key: _cut(value, MAX_TEXT) if isinstance(value, str) else value for key, value in result.items()}
    while len(_json(shown).encode()) > LIMIT:
        longest = max(shown, key=lambda key: (isinstance(shown[key], list) and len(shown[key]), _length(shown[key])))
        value = shown[longest]
        shown[longest] = value[: len(value) // 2] if isinstance(value, list) else _cut(value, _length(value) * 3 // 4)
    return _json(shown)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str) else 0


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: max(0, limit - 1)]}…"


def _json(result: Mapping[str, Any]) -> str:
    return json.dumps(result, ensure_ascii=False, separators=(",", ":"))
