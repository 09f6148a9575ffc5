"""How numbers, times and names read. Pure; None reads as a dash everywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

DASH = "–"
THIN = "\u202f"
"""Narrow no-break space, between a number and its unit."""
POLICY_NAMES = {
    "direct": "Direct answer",
    "whole-image": "Whole image",
    "first-candidate": "First candidate",
    "prompted": "Prompted base",
    "sft": "SFT",
    "grpo": "GRPO",
    "teacher": "Teacher",
}
KIND_NAMES = {"curate": "Curate", "sft": "SFT", "stratify": "Stratify", "grpo": "GRPO", "evaluate": "Evaluate"}


def policy(name: object) -> str:
    return POLICY_NAMES.get(str(name), str(name))


def stage(kind: str, arm: str = "") -> str:
    shown = KIND_NAMES.get(kind, kind)
    return f"{shown} · {arm}" if arm else shown


def percent(share: float | None, digits: int = 1) -> str:
    """
    >>> percent(0.7834).replace(THIN, " ")
    '78.3 %'
    """
    return DASH if share is None else f"{100 * share:.{digits}f}{THIN}%"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    return DASH if difference is None else f"{100 * difference:+.1f}".replace("-", "−")


def span(ends: tuple[float, float] | None) -> str:
    """An interval of shares, in percent."""
    return DASH if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}".replace("-", "−")


def figure(value: float | None) -> str:
    """Three significant digits, plainly.

    >>> [figure(x) for x in (0.4712, 2e-06, 12.3456, 1234.5, 0.0, -0.03)]
    ['0.471', '2e-6', '12.3', '1,234', '0', '−0.03']
    """
    if value is None:
        return DASH
    if value == 0:
        return "0"
    size = abs(value)
    if size < 0.001:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        shown = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
        return shown.replace("-", "−", 1) if value < 0 else shown
    shown = f"{value:,.0f}" if size >= 100 else f"{value:.3g}"
    return shown.replace("-", "−")


def count(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"


def spaced(name: str) -> str:
    """
    >>> [spaced(x) for x in ("WaitingForEndpoints", "Not started", "FineTuning")]
    ['Waiting for endpoints', 'Not started', 'Fine tuning']
    """
    return re.sub(r"(?<=[a-z])([A-Z])", lambda found: f" {found.group(1).lower()}", name)


def listed(names: Sequence[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([part for part in (", ".join(names[:-1]), *names[-1:]) if part])


def unlinked(text: str) -> str:
    """A sentence whose addresses are words, not links: the page refers to nothing outside.

    >>> unlinked("answers at http://127.0.0.1:4")
    'answers at 127.0.0.1:4'
    """
    return re.sub(r"https?://", "", text)


def plural(value: int, noun: str) -> str:
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """
    >>> [duration(x).replace(THIN, " ") for x in (0.25, 11.4, 112, 7322, 200000)]
    ['0.25 s', '11.4 s', '1 min 52 s', '2 h 2 min', '2 d 7 h']
    """
    if seconds is None:
        return DASH
    if seconds < 1:
        return f"{seconds:.2f}{THIN}s"
    if seconds < 60:
        return f"{seconds:.1f}{THIN}s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{THIN}{unit}" + (f" {rest}{THIN}{name}" if rest else "")
    return f"{whole}{THIN}s"


def when(moment: datetime | None) -> str:
    return DASH if moment is None else moment.astimezone(UTC).strftime("%-d %B %Y, %H:%M UTC")
