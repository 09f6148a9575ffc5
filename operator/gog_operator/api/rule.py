"""One rule about several fields together, as the table of `rules` holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

FORBIDDEN, REQUIRED = "FieldValueForbidden", "FieldValueRequired"


@dataclass(frozen=True)
class Rule:
    """One rule about the fields of a class."""

    rule: str
    """CEL expression that holds for a valid object; `self` is the object that the rule is attached to."""
    message: str
    """What is wrong, and the remedy."""
    path: str = ""
    """Field to blame, below the object: `.store`."""
    reason: str = ""
    """Reason that the API server gives; empty for FieldValueInvalid."""
    check: Callable[[Any], bool] | None = None
    """The same expression in Python; None where the model's own validator checks it."""
    cluster: bool = False
    """Whether it holds on a cluster only."""

    def body(self) -> dict[str, str]:
        """As an item of `x-kubernetes-validations`."""
        made = {"rule": self.rule, "message": self.message}
        return made | ({"fieldPath": self.path} if self.path else {}) | ({"reason": self.reason} if self.reason else {})


def has(node: BaseModel, field: str) -> bool:
    """CEL's has(): whether a field is given. field: its Python name."""
    return field in node.model_fields_set and getattr(node, field) is not None
