"""Numbers of a command line with their bounds: a server that could not work does not start, and argparse names the option."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A type of argparse for whole numbers of at least `low` and at most `high`; None: of any size."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise _wrong("a whole number", low, high, text) from None
        if number < low or (high is not None and number > high):
            raise _wrong("a whole number", low, high, text)
        return number

    return parse


def real(low: float, high: float | None = None) -> Callable[[str], float]:
    """A type of argparse for finite numbers of at least `low` and at most `high`; None: of any size."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise _wrong("a number", low, high, text) from None
        if not math.isfinite(number) or number < low or (high is not None and number > high):
            raise _wrong("a number", low, high, text)
        return number

    return parse


def _wrong(what: str, low: float, high: float | None, text: str) -> argparse.ArgumentTypeError:
    bounds = f"of at least {low:,g}" if high is None else f"from {low:,g} to {high:,g}"
    return argparse.ArgumentTypeError(f"must be {what} {bounds}, not {text!r}")
