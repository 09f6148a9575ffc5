"""The reward of a trajectory and the advantage within its group. Pure.

r = (1 - λ) · accuracy + λ · format, λ = 0.1 [peer: DeepMMSearch-R1, MMSearch-R1; the formula is the paper's, its λ is
not public]. Accuracy is the judge's verdict; format is 1 if every turn is well formed and the last one is an answer.
Without a verdict there is no reward, because a judge error is not a wrong answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gog.trajectory import Reward, Trajectory


def reward(
    accuracy: float | None,
    well_formed: bool,
    *,
    format_weight: float = 0.1,
    searched: bool = False,
    search_penalty: float = 0.0,
) -> Reward:
    """The reward with its parts.

    Args:
        accuracy: the judge's verdict, 0 or 1; None without one.
        well_formed: whether the trajectory counts as well formed.
        format_weight: λ, from 0 to 1.
        searched: whether the trajectory searched.
        search_penalty: share of the accuracy that a search costs, from 0 to 1.

    >>> [reward(a, f).total for a in (0.0, 1.0) for f in (False, True)]
    [0.0, 0.1, 0.9, 1.0]
    >>> reward(1.0, True, searched=True, search_penalty=0.1).total
    0.91
    """
    fmt = float(well_formed)
    if accuracy is None:
        return Reward(accuracy=None, format=fmt, total=None)
    kept = accuracy * (1 - search_penalty) if searched else accuracy
    return Reward(accuracy=accuracy, format=fmt, total=round((1 - format_weight) * kept + format_weight * fmt, 9))


def exclusion(trajectory: Trajectory, failures: str) -> str:
    """Why a trajectory must not be trained on; empty if it may.

    Args:
        trajectory: a judged trajectory.
        failures: what to do with tool failures: mask, drop or keep.
    """
    if trajectory.reward is None or trajectory.reward.total is None:
        return "judge"
    if trajectory.failures and failures != "keep":
        return f"tool failure: {trajectory.failures[0].tool} {trajectory.failures[0].kind}"
    return ""


def group_totals(group: Sequence[Trajectory], failures: str) -> list[float | None]:
    """The rewards that count within a group; None for a member that is excluded.

    Args:
        group: the judged trajectories of one question.
        failures: mask excludes the members with a tool failure, drop the whole group if there is one, keep no member.
    """
    if failures == "drop" and any(item.failures for item in group):
        return [None] * len(group)
    return [None if exclusion(item, failures) or item.reward is None else item.reward.total for item in group]


def group_advantages(totals: Sequence[float | None], *, epsilon: float = 1e-6) -> list[float | None]:
    """GRPO advantages of one group: (r - mean) / deviation over its valid members.

    The deviation is the population's, so that advantages have unit deviation exactly. Equal rewards, and fewer than two
    valid members, give zeros, because there is nothing to compare.

    Args:
        totals: reward of each member; None for one that is excluded.
        epsilon: deviation below which rewards count as equal.

    Returns:
        An advantage for each member, in order; None for one that is excluded.

    Source:
        Shao et al., DeepSeekMath (arXiv 2402.03300), section 4.1.
    """
    valid = np.array([total for total in totals if total is not None], dtype=np.float64)
    if len(valid) < 2 or valid.std() < epsilon:
        return [None if total is None else 0.0 for total in totals]
    mean, deviation = valid.mean(), valid.std()
    return [None if total is None else float((total - mean) / deviation) for total in totals]
