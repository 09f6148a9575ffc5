"""The one thing a store job tells the operator: a JSON object, in the file that Kubernetes keeps as the pod's message.

It holds at most 4096 bytes there, so lists are cut before they make it torn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLACE = "GOG_TERMINATION_LOG"
"""Environment: path of the file. Outside of pods there is none."""
LIMIT = 4096


def leave(told: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Writes the message where it is wanted; returns it."""
    text = fitting(told)
    if environment.get(PLACE):
        Path(environment[PLACE]).write_text(text, encoding="utf-8")
    return text


def fitting(told: Mapping[str, Any]) -> str:
    """As JSON of at most LIMIT bytes: texts are cut, then the ends of lists are left out."""
    shown = {key: value[:500] if isinstance(value, str) else value for key, value in told.items()}
    while len(_written(shown).encode()) > LIMIT:
        longest = max((key for key in shown if isinstance(shown[key], list)), key=lambda key: len(shown[key]))
        shown[longest] = shown[longest][: len(shown[longest]) // 2]
    return _written(shown)


def _written(told: Mapping[str, Any]) -> str:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
