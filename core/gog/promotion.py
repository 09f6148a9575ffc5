"""When a new version of the policy may be served: the evaluation's gate. Pure.

The accuracy reaches a threshold, and on the questions that the version served now has answered too it is not lower by more
than chance (a paired test, `gog.significance`). What follows is the canary's rule (gog.canary_rule).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gog import significance, stats
from gog.spec import GateSpec

Verdicts = Mapping[str, float]
"""Mean verdict (0 to 1) by question, of those with one."""


@dataclass(frozen=True)
class Gate:
    """What the gate decides."""

    is_open: bool
    """Whether the version may be served."""
    sentence: str
    """Why, with the figures."""


def gate(name: str, new: Verdicts, rule: GateSpec, served: str = "", old: Verdicts | None = None) -> Gate:
    """Decides whether a version may be served.

    Args:
        name: of the version.
        new: its verdicts.
        rule: the gate.
        served: name of the version that is served now; empty for none.
        old: its verdicts on the same dataset; None where it was evaluated on another one.
    """
    if not new:
        return Gate(False, f"{name} has no judged answer")
    accuracy = stats.mean(list(new.values()))
    found = f"{name} answers {accuracy:.1%} of {len(new)} questions correctly"
    if accuracy < rule.min_accuracy:
        return Gate(False, f"{found}, less than {rule.min_accuracy:.1%} (serve.gate.minAccuracy)")
    if not served:
        return Gate(True, f"{found}, at least {rule.min_accuracy:.1%}; nothing is served yet")
    common = [value - old[question] for question, value in new.items() if question in old] if old else []
    if not common:
        return Gate(
            False, f"{found}, but {served}, which is served, was evaluated on other questions (serve another name)"
        )
    test = significance.compare([common])
    against = (
        f"{test.mean:+z.1%} [{test.low:+z.1%}, {test.high:+z.1%}] against {served} on {test.n} questions of both, "
        f"p = {test.p:.2g}; so many show a difference of {test.detectable:.1%}"
    )
    worse = test.mean < 0 and test.p <= rule.level
    return Gate(not worse, f"{found}, {'which is worse: ' if worse else ''}{against}")
