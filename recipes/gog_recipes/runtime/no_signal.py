"""Steps without a learning signal: every group of a step has zero reward variance, so its update changes nothing.

One such step is ordinary. Many in a row mean that the run spends its time on questions from which this policy cannot
learn, so the stage warns, and stops if `no_signal` is `stop`. Pure: what it decides follows from the lines of the metric
log, so a resumed attempt counts on where the one before was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gog import stats
from gog.errors import UserError
from gog.spec import GRPOSettings

Lines = Sequence[Mapping[str, Any]]
"""Lines of the metric log, oldest first."""


def in_a_row(lines: Lines) -> int:
    """How many of the last steps, without a gap, learned from no trajectory."""
    learned = (place for place, line in enumerate(reversed(lines)) if line.get("learned") != 0)
    return next(learned, len(lines))


def warning(lines: Lines, settings: GRPOSettings) -> str:
    """What to log after the newest step; empty for nothing. It recurs after as many further steps without a signal.

    Raises:
        UserError: `no_signal` is `stop`, and there are too many such steps.
    """
    count = in_a_row(lines)
    if count == 0 or count % settings.max_no_signal_steps:
        return ""
    span = "the last step" if count == 1 else f"the last {count} steps"
    error = UserError(
        f"all groups had zero reward variance in {span}, so nothing was learned",
        where="stages.grpo.maxNoSignalSteps",
        remedy=_remedy(lines, count),
    )
    if settings.no_signal == "stop":
        raise error
    return f"warning: {error.sentence()}"


def _remedy(lines: Lines, count: int) -> str:
    """What to change, by how often the policy was right in these steps and before them."""
    accuracy = stats.mean([line.get("accuracy_mean", 0.0) for line in lines[-count:]])
    before = stats.mean([line.get("accuracy_mean", 0.0) for line in lines[:-count]]) if len(lines) > count else 0.0
    if accuracy > 0.99:
        return "the questions are too easy for this policy: train on a harder level (levels), or on harder questions"
    if accuracy > 0.01:
        return "of each question all samples succeed or all fail: raise groupSize or temperature, or check the judge"
    if before > 0.05:
        return f"the policy was right in {before:.0%} of its answers before: lower learningRate, or raise klCoef"
    return "the questions are too hard for this policy: add an easier level (levels), improve SFT, or check the judge"
