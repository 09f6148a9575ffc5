"""Counts and times the operations of a store (`gog.metrics`)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from gog import metrics
from gog.errors import UserError
from gog.store.backend import Unavailable

Given = ParamSpec("Given")
Result = TypeVar("Result")


def counted(operation: str) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Decorator: each call counts as one operation, unless it is part of another one."""

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        @functools.wraps(function)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            with metrics.store_operation(operation, _outcome):
                return function(*args, **kwargs)

        return call

    return decorate


def _outcome(error: Exception) -> str:
    kinds = {UserError: "refused", Unavailable: "unavailable"}
    return next((name for kind, name in kinds.items() if isinstance(error, kind)), "error")
