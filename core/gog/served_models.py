"""Which models a server says that its answers came from.

A score of an endpoint that changed its model midway is one of two models, and verdicts of two judges do not compare. A chat
completion names its `model`, and some servers the `system_fingerprint` of what runs it, so both are counted here. A server
that names neither cannot be distinguished from one that changed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 120
"""Characters of a name that are kept."""
MOST = 32
"""Names that are counted; a server may send another one with each answer."""


class ServedModels:
    """Counts the answers of one server by model. May be used by several threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def see(self, name: str) -> None:
        """Counts an answer by the `identity` of its completion; one without a name counts as nothing."""
        with self._lock:
            if name and (name in self._counts or len(self._counts) < MOST):
                self._counts[name] += 1

    def counts(self) -> dict[str, int]:
        """Answers by model, in the order in which models were seen."""
        with self._lock:
            return dict(self._counts)


def identity(completion: Any) -> str:
    """The model that a chat completion names, with its fingerprint; empty where it names none.

    >>> identity({"model": "gpt-x", "system_fingerprint": "fp_1"}), identity({"model": 7}), identity([])
    ('gpt-x (fp_1)', '', '')
    """
    if not isinstance(completion, dict):
        return ""
    model, fingerprint = (_text(completion.get(name)) for name in ("model", "system_fingerprint"))
    return f"{model} ({fingerprint})".strip() if fingerprint else model


def _text(value: Any) -> str:
    return " ".join(value[:LONGEST].split()) if isinstance(value, str) else ""


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of several processes or engines together."""
    found: Counter[str] = Counter()
    for each in counts:
        found.update(each)
    return dict(found)


def change(service: str, counts: Mapping[str, int]) -> str:
    """What to say of a server that answered as several models; empty for one that did not.

    >>> change("judge", {"a": 3, "b": 1}), change("judge", {"a": 4})
    ('the judge changed its model: a (3 answers), b (1 answer)', '')
    """
    if len(counts) < 2:
        return ""
    parts = (f"{name} ({count} answer{'' if count == 1 else 's'})" for name, count in counts.items())
    return f"the {service} changed its model: {', '.join(parts)}"
