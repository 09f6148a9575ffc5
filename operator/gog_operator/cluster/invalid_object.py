"""Sets the Ready condition of an object that does not match our models, on the raw document. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gog_operator.api import conditions
from gog_operator.api.meta import ARTIFACTS, Reason

Document = Mapping[str, Any]
REPLACED = ("Ready", "Reconciling", "Stalled")
"""Conditions that describe an object which can be read."""


def is_reported(body: Document, sentence: str) -> bool:
    """Whether the object's Ready condition has this message already."""
    return any(each.get("type") == "Ready" and each.get("message") == sentence for each in _conditions(body))


def report_patch(body: Document, sentence: str, now: datetime) -> dict[str, Any]:
    """The merge patch that reports the sentence in the object's status and keeps other conditions."""
    metadata = body["metadata"]
    generation = int(metadata.get("generation") or 1)
    ours = conditions.put((), "Ready", False, Reason.INVALID_INPUT, sentence, now=now, generation=generation)
    ours = conditions.put(ours, "Stalled", True, Reason.INVALID_INPUT, sentence, now=now, generation=generation)
    others = [each for each in _conditions(body) if each.get("type") not in REPLACED]
    return {
        "metadata": {"resourceVersion": metadata.get("resourceVersion")},
        "status": {
            "conditions": [*others, *(each.model_dump(mode="json", by_alias=True) for each in ours)],
            "observedGeneration": generation,
        },
    }


def release_patch(body: Document) -> dict[str, Any] | None:
    """The merge patch by which an object that is being deleted may disappear without an erasure of its artifacts, which cannot
    be read any more; None where nothing of ours holds it."""
    metadata = body["metadata"]
    finalizers = list(metadata.get("finalizers") or ())
    if "deletionTimestamp" not in metadata or ARTIFACTS not in finalizers:
        return None
    left = [each for each in finalizers if each != ARTIFACTS]
    return {"metadata": {"resourceVersion": metadata.get("resourceVersion"), "finalizers": left}}


def _conditions(body: Document) -> list[dict[str, Any]]:
    return list(body.get("status", {}).get("conditions") or ())
