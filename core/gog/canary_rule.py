"""Whether a new version of the policy that answers a share of the chats replaces the old one. Pure, and without numpy.

After each fifth of the window three one-sided tests ask whether it is worse than the old one meanwhile: chats that failed
and chats that broke the format by Fisher's exact test, the time of a chat by Welch's test of its logarithm. Each is made at
a fifteenth of the stated level, so that all of them together roll back a version that is no worse no more often than the
level says (Bonferroni). At the end of the window a version that no test has found worse replaces the old one, which shows
that it is not much worse, never that it is as good: the sentence says which difference so many chats show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from gog.spec import CanarySpec

LOOKS = 5
"""Times at which a canary is tested, evenly spaced over its window."""
TESTS = 3
"""Tests at each of them."""
POWER = 0.8
"""Chance with which the difference that a sentence states is found."""


@dataclass(frozen=True)
class Chats:
    """What one version did with its chats."""

    chats: int = 0
    """Chats that ended, but for those whose client went away or asked nothing."""
    failed: int = 0
    """Those that ended with an error: the policy's server did not answer, or time ran out."""
    malformed: int = 0
    """Those with a turn that broke the format, or without an answer."""
    log_seconds: float = 0.0
    """Sum of the logarithms of their durations in seconds, of those that did not fail."""
    log_seconds_squared: float = 0.0
    """Sum of the squares of these."""

    @property
    def answered(self) -> int:
        """Chats that did not fail."""
        return self.chats - self.failed

    def moments(self) -> tuple[float, float]:
        """Mean and variance (with n - 1) of the logarithm of a chat's duration. Needs two chats that did not fail."""
        mean = self.log_seconds / self.answered
        return mean, max(0.0, (self.log_seconds_squared - self.answered * mean * mean) / (self.answered - 1))


@dataclass(frozen=True)
class Look:
    """What a canary's rule decides at one time."""

    decision: Literal["wait", "promote", "roll_back"]
    """What is done with the new version."""
    looks: int
    """Times at which it was tested, this one included."""
    sentence: str
    """Why, with the figures."""


def look(old: Chats, new: Chats, rule: CanarySpec, looks: int) -> Look:
    """Tests a canary where the next fifth of its window is over.

    Args:
        old: chats of the version that is served, since the canary began.
        new: those of the new one.
        rule: the canary's rule.
        looks: times at which it was tested before.
    """
    reached = min(LOOKS, new.chats * LOOKS // rule.chats)
    figures = _figures(old, new)
    if reached <= looks:
        return Look("wait", looks, f"{new.chats} of {rule.chats} chats: {figures}")
    level = rule.level / (LOOKS * TESTS)
    faults = {
        "more chats fail": fisher(new.failed, new.chats, old.failed, old.chats),
        "more chats break the format": fisher(new.malformed, new.answered, old.malformed, old.answered),
        f"a chat takes more than {rule.max_slowdown:g} times as long": slower(old, new, rule.max_slowdown),
    }
    worst = min(faults, key=faults.__getitem__)
    if faults[worst] <= level:
        return Look("roll_back", reached, f"{worst} (p = {faults[worst]:.2g}, at most {level:.2g}): {figures}")
    if reached < LOOKS:
        return Look("wait", reached, f"{new.chats} of {rule.chats} chats: {figures}")
    return Look("promote", reached, f"no worse after {new.chats} chats: {figures}; {_power(old, new, level)}")


def _figures(old: Chats, new: Chats) -> str:
    parts = [f"failed {new.failed}/{new.chats} against {old.failed}/{old.chats}"]
    parts.append(f"malformed {new.malformed}/{new.answered} against {old.malformed}/{old.answered}")
    if new.answered and old.answered:
        seconds = [math.exp(each.log_seconds / each.answered) for each in (new, old)]
        parts.append(f"{seconds[0]:.3g} s against {seconds[1]:.3g} s")
    return ", ".join(parts)


def _power(old: Chats, new: Chats, level: float) -> str:
    """The rate of faults that so many chats show at the last look with a chance of 80 %."""
    before = (old.failed + 0.5) / (old.chats + 1)
    normal = NormalDist()
    factor = normal.inv_cdf(1 - level) + normal.inv_cdf(POWER)
    spread = math.sqrt(before * (1 - before) * (1 / max(1, new.chats) + 1 / max(1, old.chats)))
    return f"so many show some {factor * spread:.1%} more that fail"


def fisher(new: int, of_new: int, old: int, of_old: int) -> float:
    """One-sided p-value of Fisher's exact test: that so many of the new ones, or more, are faults by chance.

    Args:
        new: faults of the new version.
        of_new: its chats.
        old: faults of the old one.
        of_old: its chats.

    >>> round(fisher(3, 4, 1, 4), 4)
    0.2429
    """
    faults, everything = new + old, of_new + of_old
    if not new or not of_new or not of_old:
        return 1.0
    every = _log_choose(everything, faults)
    most = min(faults, of_new)
    terms = [_log_choose(of_new, k) + _log_choose(of_old, faults - k) - every for k in range(new, most + 1)]
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def _log_choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def slower(old: Chats, new: Chats, ratio: float) -> float:
    """One-sided p-value that a chat of the new version takes no more than `ratio` times as long (Welch, normal quantiles).

    1 before either has two chats that did not fail.
    """
    if min(old.answered, new.answered) < 2:
        return 1.0
    (before, spread_before), (after, spread_after) = old.moments(), new.moments()
    error = math.sqrt(spread_before / old.answered + spread_after / new.answered)
    excess = after - before - math.log(ratio)
    if not error:
        return 0.0 if excess > 0 else 1.0
    return 1 - NormalDist().cdf(excess / error)
