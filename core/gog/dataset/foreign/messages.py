"""Conversations as trainers write them: role and content, or from and value; content as text or as parts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gog.dataset.foreign import values

USERS = ("user", "human")
ASSISTANTS = ("assistant", "gpt")


def first_user(turns: Any, field: str) -> str:
    """The text of the first turn of a user. Raises Fault if there is none."""
    found = next((turn for turn in _turns(turns, field) if role(turn) in USERS), None)
    if found is None:
        raise values.Fault(field, "has no turn of a user")
    return text(found, field)


def last_assistant(turns: Any, field: str) -> str:
    """The text of the last turn of an assistant. Raises Fault if there is none."""
    found = [turn for turn in _turns(turns, field) if role(turn) in ASSISTANTS]
    if not found:
        raise values.Fault(field, "has no turn of an assistant, so there is no answer")
    return text(found[-1], field)


def role(turn: Mapping[str, Any]) -> str:
    """Who speaks in a turn."""
    return str(values.get(turn, "role", "from") or "")


def text(turn: Mapping[str, Any], field: str) -> str:
    """The words of a turn; the text parts of one in parts. Raises Fault if it holds none."""
    content = values.get(turn, "content", "value")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping) and isinstance(part.get("text"), str)]
        content = "\n".join(part["text"] for part in parts)
    if not isinstance(content, str) or not content.strip():
        raise values.Fault(field, "a turn without text")
    return content


def images(turns: Any) -> list[Any]:
    """The images within the parts of the turns, as `gog.dataset.foreign.embedded` reads them."""
    parts = [part for turn in turns or () if isinstance(turn, Mapping) for part in _parts(turn)]
    found = [values.get(part, "image_url", "image") for part in parts if isinstance(part, Mapping)]
    return [each for each in found if each is not None]


def _parts(turn: Mapping[str, Any]) -> list[Any]:
    content = values.get(turn, "content", "value")
    return content if isinstance(content, list) else []


def _turns(turns: Any, field: str) -> list[Mapping[str, Any]]:
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise values.Fault(field, f"is {values.kind(turns)}, not a list of turns")
    return turns
