"""Sets the Ready condition of an object that does not match our models, on the raw document. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gog_operator.api import conditions
from gog_operator.api.meta import Reason

Document = Mapping[str, Any]


def is_reported(body: Document, sentence: str) -> bool:
    """Whether the object's Ready condition has this message already."""
    return any(each.get("type") == "Ready" and each.get("message") == sentence for each in _conditions(body))


def report_patch(body: Document, sentence: str, now: datetime) -> dict[str, Any]:
    """The merge patch that reports the sentence in the object's status and keeps other conditions."""
    metadata = body["metadata"]
    generation = int(metadata.get("generation") or 1)
    (ready,) = conditions.put((), "Ready", False, Reason.INVALID_INPUT, sentence, now=now, generation=generation)
    others = [each for each in _conditions(body) if each.get("type") != "Ready"]
    return {
        "metadata": {"resourceVersion": metadata.get("resourceVersion")},
        "status": {"conditions": [*others, ready.model_dump(mode="json", by_alias=True)]},
    }


def _conditions(body: Document) -> list[dict[str, Any]]:
    return list(body.get("status", {}).get("conditions") or ())
