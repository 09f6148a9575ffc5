"""The rules by which kstatus (Flux, `kpt live`, cli-utils) reads an object of a kind that it does not know."""

from __future__ import annotations

from typing import Any


def status_of(document: dict[str, Any]) -> str:
    """Current, InProgress, Failed or Terminating. Of the generic rules, in their order (`status.Compute`)."""
    metadata, status = document["metadata"], document.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    observed = status.get("observedGeneration")
    if observed is not None and observed != metadata.get("generation", 1):
        return "InProgress"
    holds = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    if holds.get("Reconciling") == "True":
        return "InProgress"
    if holds.get("Stalled") == "True":
        return "Failed"
    if "Ready" in holds and holds["Ready"] != "True":
        return "InProgress"
    return "Current"
