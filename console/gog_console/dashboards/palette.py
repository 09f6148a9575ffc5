"""Colours: a label value has the same colour in every panel, on dark and on light backgrounds.

Amber is a failure of infrastructure, red a limit or something broken, green is fine; tools, kinds of failure and parts of
a step have colours of their own, neighbours far apart. What has none takes the next of CYCLE.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gog import catalog

BLUE, GREEN, AMBER, RED = "#4c7fe0", "#3fa56b", "#e0912f", "#d65a4f"
VIOLET, TEAL, GOLD, GREY = "#9273c4", "#36a3a3", "#c9a227", "#8a8f98"
PINK, BROWN, SKY, OLIVE = "#d0729b", "#a9784f", "#7fb2f0", "#9aa84a"
CYCLE = (BLUE, TEAL, VIOLET, GOLD, PINK, OLIVE, BROWN, SKY, GREEN, GREY)

TOOLS = dict(zip(catalog.TOOL_NAMES, (TEAL, BLUE, VIOLET, GOLD, PINK, OLIVE, BROWN, SKY)))
KINDS = {
    "timeout": AMBER, "rate_limited": VIOLET, "server_error": RED, "connection": BROWN, "malformed": PINK,
    "refused": BLUE, "auth": GOLD, "no_credit": TEAL, "budget": GREEN, "breaker_open": GREY, "undecided": OLIVE, "cache_miss": SKY,
}  # fmt: skip
DECISIONS = {
    "waited": SKY, "retried": AMBER, "hedged": BLUE, "breaker": GREY, "budget": GREEN, "fell_back": VIOLET,
}  # fmt: skip
OUTCOMES = {"ok": GREEN, "client_error": VIOLET, "server_error": RED, "gone": GREY}
STATUSES = {"counted": GREEN, "tool_failure": AMBER, "judge": VIOLET, "skipped": GREY}
VERDICTS = {"yes": GREEN, "no": BLUE, "undecided": AMBER}
COMPONENTS = {"reward": BLUE, "accuracy": GREEN, "format": VIOLET}
PARTS = {
    "rollout": BLUE, "tools": AMBER, "judge": GOLD, "canary": PINK, "reference": SKY, "train": TEAL, "evaluation": GREEN,
    "sync": OLIVE, "checkpoint": VIOLET, "other": BROWN, "idle": GREY,
}  # fmt: skip
CACHE = {"hit": GREEN, "joined": SKY, "miss": GREY}
CONDITIONS = {"Complete": GREEN, "Ready": BLUE, "Pending": SKY, "Suspended": GREY, "Failed": RED}
ATTEMPTS = {"succeeded": GREEN, "failed": RED, "interrupted": AMBER}


def colour(name: str, colours: Mapping[str, str], position: int = 0) -> str:
    """The colour of a series by the first word of `colours` that its name has; else by its position.

    >>> colour("p95 judge", TOOLS) == GOLD
    True
    """
    for word, value in colours.items():
        if re.search(rf"\b{re.escape(word)}\b", name):
            return value
    return CYCLE[position % len(CYCLE)]
