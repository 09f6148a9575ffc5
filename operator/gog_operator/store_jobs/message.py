"""The result of a store job: a JSON object in the pod's termination message.

The message holds at most 4096 bytes, so lists are shortened before Kubernetes would cut the JSON.
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
MAX_TEXT = 500
"""Maximum characters of a text in a message."""


def leave(result: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Returns the message, and writes it to its file in a pod."""
    text = shortened(result)
    if environment.get(PLACE):
        Path(environment[PLACE]).write_text(text, encoding="utf-8")
    return text


def shortened(result: Mapping[str, Any]) -> str:
    """The result as JSON of at most LIMIT bytes: texts are cut, then the ends of lists are dropped."""
    shown = {key: value[:MAX_TEXT] if isinstance(value, str) else value for key, value in result.items()}
    while len(_json(shown).encode()) > LIMIT:
        longest = max((key for key in shown if isinstance(shown[key], list)), key=lambda key: len(shown[key]))
        shown[longest] = shown[longest][: len(shown[longest]) // 2]
    return _json(shown)


def _json(result: Mapping[str, Any]) -> str:
    return json.dumps(result, ensure_ascii=False, separators=(",", ":"))
