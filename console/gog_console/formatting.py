"""Numbers, times and names as text, for terminals and for the report. Pure.

A terminal has little room, so it gets the short forms (`short_number`, `short_percent`, `clock`); the report spells
units out. In the report's forms None reads as a dash.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from gog import catalog
from gog.calls.spend import Spend

BARS = "▁▂▃▄▅▆▇█"
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
    "endpoint-direct": "Endpoint, direct",
    "endpoint": "Endpoint",
    "teacher": "Teacher",
}
KIND_NAMES = {stage.name: stage.title for stage in catalog.STAGES}


# Names


def policy(name: object) -> str:
    """Title of a policy in tables and charts."""
    return POLICY_NAMES.get(str(name), str(name))


def stage(kind: str, arm: str = "") -> str:
    """Title of a stage, with its arm if it has one."""
    shown = KIND_NAMES.get(kind, kind)
    return f"{shown} · {arm}" if arm else shown


def p_value(value: float) -> str:
    """A p-value, of which no more is said below one in a thousand.

    >>> p_value(0.04958), p_value(0.0002)
    ('0.0496', '< 0.001')
    """
    return f"{value:.4f}" if value >= 0.001 else "< 0.001"


def spaced(name: str) -> str:
    """
    >>> [spaced(x) for x in ("WaitingForToolServers", "Not started", "FineTuning")]
    ['Waiting for tool servers', 'Not started', 'Fine tuning']
    """
    return re.sub(r"(?<=[a-z])([A-Z])", lambda found: f" {found.group(1).lower()}", name)


def listed(names: Sequence[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([part for part in (", ".join(names[:-1]), *names[-1:]) if part])


def unlinked(text: str) -> str:
    """Text in which no address is a link, because the report refers to nothing outside itself.

    >>> unlinked("answers at http://127.0.0.1:4")
    'answers at 127.0.0.1:4'
    """
    return re.sub(r"https?://", "", text)


def printable(text: str) -> str:
    """Text in one line, without control characters, which a terminal would obey."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in " ".join(text.split()))


# Numbers


def percent(share: float | None, digits: int = 1) -> str:
    """
    >>> percent(0.7834).replace(THIN, " ")
    '78.3 %'
    """
    return DASH if share is None else f"{100 * share:.{digits}f}{THIN}%"


def short_percent(share: float) -> str:
    """
    >>> short_percent(0.031), short_percent(0.7834)
    ('3.1 %', '78 %')
    """
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    return DASH if difference is None else f"{100 * difference:+z.1f}".replace("-", "−")


def interval(ends: tuple[float, float] | None) -> str:
    """An interval of shares, in percent."""
    return DASH if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}".replace("-", "−")


def figure(value: float | None) -> str:
    """Three significant digits.

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


def short_number(value: float) -> str:
    """
    >>> [short_number(x) for x in (1200, 0.471, 2e-06, float("nan"))]
    ['1,200', '0.47', '2.0e-06', 'nan']
    """
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) >= 100):
        return f"{int(value):,}"
    return f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1e}"


def count(value: float | None) -> str:
    """A whole number with separators."""
    return DASH if value is None else f"{value:,.0f}"


def series(value: Any) -> list[float]:
    """A metric that may be one number or a list of numbers, as a list."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [float(each) for each in values if isinstance(each, int | float)]


def mean(values: Sequence[float]) -> float:
    """Mean, or NaN when a value is not finite: the mean of the others would hide it."""
    return statistics.fmean(values) if all(map(math.isfinite, values)) else math.nan


def sparkline(values: Sequence[float], width: int = 8) -> str:
    """Means of `width` consecutive stretches as bars; `!` marks a stretch that contains a value that is not finite."""
    width = min(width, len(values))
    cuts = [round(index * len(values) / width) for index in range(width + 1)] if width else []
    return bars([mean(values[a:b]) for a, b in itertools.pairwise(cuts)])


def bars(values: Sequence[float | None]) -> str:
    """One bar per value, scaled from the lowest to the highest; None is a gap, a value that is not finite is `!`."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    return "".join(_bar(value, low, high - low) for value in values)


def _bar(value: float | None, low: float, spread: float) -> str:
    if value is None:
        return " "
    if not math.isfinite(value):
        return "!"
    share = (value - low) / spread if 0 < spread < math.inf else 0.0
    return BARS[round(share * (len(BARS) - 1))]


# Times


def spent(spend: Spend) -> str:
    """US dollars in all, and by tool where several charged: `$1.30 (imageSearch $0.9, judge $0.4)`."""
    parts = {tool: spend.total(tool).usd for tool in sorted(spend.tools) if spend.total(tool).usd}
    by_tool = ", ".join(f"{tool} {dollars(usd)}" for tool, usd in parts.items())
    return dollars(spend.total().usd) + (f" ({by_tool})" if len(parts) > 1 else "")


def dollars(usd: float) -> str:
    """An amount of US dollars: whole cents, and below a dollar two significant digits.

    >>> dollars(12.345), dollars(0.0123), dollars(0)
    ('$12.35', '$0.012', '$0')
    """
    if usd >= 1:
        return f"${usd:,.2f}"
    return f"${float(f'{usd:.2g}'):.10f}".rstrip("0").rstrip(".")


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


def clock(seconds: float) -> str:
    """
    >>> [clock(x) for x in (11.4, 112, 7390)]
    ['11.4 s', '1:52', '2:03:10']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def estimate(seconds: float) -> str:
    """An estimated duration, without tenths: `48 s`, `1:52`."""
    return f"{seconds:.0f} s" if seconds < 59.5 else clock(seconds)


def age(seconds: float) -> str:
    """An age in one unit, in kubectl's form: `45s`, `12m`, `9h`, `3d`."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 2:
        return f"{max(int(seconds), 0)}s"
    return f"{int(minutes)}m" if minutes < 120 else f"{int(hours)}h" if hours < 48 else f"{int(days)}d"


def when(moment: datetime | None) -> str:
    """A date and time in UTC: `14 March 2026, 09:26 UTC`."""
    return DASH if moment is None else moment.astimezone(UTC).strftime("%-d %B %Y, %H:%M UTC")


def since(moment: datetime, now: datetime) -> float:
    """Seconds from `moment` to `now`; a time without a zone, as in a file edited by hand, is taken as UTC."""
    first, last = (each if each.tzinfo is not None else each.replace(tzinfo=UTC) for each in (moment, now))
    return (last - first).total_seconds()
