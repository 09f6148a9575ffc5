"""pydantic's first error in the words of a user: the field by its dotted path, and the cause.

pydantic puts "Value error, " before what a validator of ours raises, which says nothing to a user. Manifests have wordings of
their own for each kind of error (gog_operator.api.problems).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Dotted path of the first field that does not fit, empty for the whole value, and the cause."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ".".join(str(part) for part in first["loc"]), cause(first)


def cause(error: Mapping[str, Any]) -> str:
    """The cause of one of the errors that pydantic lists."""
    return str(error["msg"]).removeprefix("Value error, ")


def first_sentence(error: ValidationError) -> str:
    """`field: cause`, or the cause alone if it is the whole value's."""
    field, cause = first_problem(error)
    return f"{field}: {cause}" if field else cause
