"""The reward of a trajectory and the advantages of a step, by estimators that the spec names. Pure.

r = (1 - λ) · accuracy + λ · format, λ = 0.1 [peer: DeepMMSearch-R1, MMSearch-R1; the formula is the paper's, its λ is
not public]. Accuracy is the judge's verdict; format is 1 if every turn is well formed and the last one is an answer.
Without a verdict there is no reward, because a judge error is not a wrong answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gog import failure_rules
from gog.spec.base import Advantages
from gog.trajectory import Reward, Trajectory

EQUAL = 1e-6
"""Deviation below which rewards count as equal."""


def reward(
    accuracy: float | None,
    well_formed: bool,
    *,
    format_weight: float = 0.1,
    searched: bool = False,
    search_penalty: float = 0.0,
    cost: float = 0.0,
    overlong: float = 0.0,
) -> Reward:
    """The reward with its parts.

    Args:
        accuracy: the judge's verdict, 0 or 1; None without one.
        well_formed: whether the trajectory counts as well formed.
        format_weight: λ, from 0 to 1.
        searched: whether the trajectory searched.
        search_penalty: share of the accuracy that searching at all costs, from 0 to 1.
        cost: share of the accuracy that calls and tokens cost (`cost_of`); above 1 it takes all of it.
        overlong: what the total loses because of the trajectory's length (`overlong_penalty`).

    >>> [reward(a, f).total for a in (0.0, 1.0) for f in (False, True)]
    [0.0, 0.1, 0.9, 1.0]
    >>> reward(1.0, True, searched=True, search_penalty=0.1).total
    0.91
    """
    fmt = float(well_formed)
    if accuracy is None:
        return Reward(accuracy=None, format=fmt, total=None)
    kept = (accuracy * (1 - search_penalty) if searched else accuracy) * max(0.0, 1 - cost)
    total = (1 - format_weight) * kept + format_weight * fmt - overlong
    return Reward(accuracy=accuracy, format=fmt, overlong=overlong, total=round(total, 9))


def cost_of(trajectory: Trajectory, *, call_penalty: float, token_penalty: float) -> float:
    """Share of its accuracy that a trajectory's tool calls and generated tokens cost.

    Both are the policy's own doing. Money is not, because an answer from the cache is free: members of a group would
    differ by who asked first.

    Args:
        trajectory: with its tokens.
        call_penalty: share that each call costs.
        token_penalty: share that 1,000 generated tokens cost.
    """
    generated = sum(len(segment.tokens) for segment in trajectory.segments if segment.source == "model")
    return call_penalty * trajectory.tool_calls + token_penalty * generated / 1000


def overlong_penalty(trajectory: Trajectory, *, max_tokens: int, share: float, penalty: float) -> float:
    """What a trajectory's reward loses because it is nearly as long as it may be: DAPO's soft rule.

    Args:
        trajectory: with its tokens.
        max_tokens: tokens of an episode at most.
        share: of `max_tokens`, at the end, over which the penalty grows linearly; 0 for no penalty.
        penalty: at the end, and of an episode that this cap ended.

    Source:
        Yu et al., DAPO (arXiv 2503.14476), equation 13; here of all tokens of an episode.
    """
    if not share:
        return 0.0
    if trajectory.stop == "max_tokens":
        return penalty
    over = len(trajectory.tokens()) / max_tokens - (1 - share)
    return penalty * min(1.0, max(0.0, over / share))


def varies(totals: Sequence[float | None], *, epsilon: float = EQUAL) -> bool:
    """Whether the rewards of a group's valid members differ, so that its members can be compared.

    Args:
        totals: reward of each member; None for one that is excluded.
        epsilon: deviation below which rewards count as equal.
    """
    valid = _valid(totals)
    return len(valid) > 1 and bool(valid.std() >= epsilon)


def group_advantages(totals: Sequence[float | None], *, epsilon: float = EQUAL) -> list[float | None]:
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
    return _scaled(totals, lambda valid: 1 / valid.std(), epsilon)


def centred_advantages(totals: Sequence[float | None]) -> list[float | None]:
    """Advantages r - mean of one group, so that questions with a small deviation weigh no more than others.

    Source:
        Liu et al., Understanding R1-Zero-Like Training (Dr. GRPO, arXiv 2503.20783).
    """
    return _scaled(totals, lambda _: 1.0)


def leave_one_out_advantages(totals: Sequence[float | None]) -> list[float | None]:
    """Advantages r - mean of the group's other valid members, an unbiased baseline. It equals n / (n - 1) · (r - mean).

    Source:
        Ahmadian et al., Back to Basics (RLOO, arXiv 2402.14740).
    """
    return _scaled(totals, lambda valid: len(valid) / (len(valid) - 1))


def batch_advantages(groups: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """Advantages (r - mean) / deviation over all valid trajectories of a step. A group of equal rewards has some, too.

    Source:
        Hu, REINFORCE++ (arXiv 2501.03262).
    """
    return _regrouped(group_advantages([total for group in groups for total in group]), groups)


def group_batch_advantages(groups: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """Advantages r - mean of the group, divided by the deviation of these over a step.

    Source:
        Hu, REINFORCE++ (arXiv 2501.03262), the variant with a group baseline.
    """
    centred = [each for group in groups for each in centred_advantages(group)]
    scale = 1 / _valid(centred).std() if varies(centred) else 0.0
    return _regrouped([None if each is None else each * scale for each in centred], groups)


Estimator = Callable[[Sequence[Sequence[float | None]]], list[list[float | None]]]
"""From the rewards of a step's groups, with None for what is excluded, to advantages of the same shape. Where rewards do not
differ (in the group, or in the step if that is what they are compared with), advantages are exactly 0."""


def _by_group(of_group: Callable[[Sequence[float | None]], list[float | None]]) -> Estimator:
    return lambda groups: [of_group(group) for group in groups]


ESTIMATORS: dict[Advantages, Estimator] = {
    "group": _by_group(group_advantages),
    "centred": _by_group(centred_advantages),
    "leave_one_out": _by_group(leave_one_out_advantages),
    "batch": batch_advantages,
    "group_batch": group_batch_advantages,
}
"""By their name in `stages.grpo.advantages`."""


def with_advantages(
    groups: Sequence[Sequence[Trajectory]], *, failures: failure_rules.Settings, estimator: Advantages
) -> list[list[Trajectory]]:
    """The groups of a step with advantages; an excluded trajectory has none and does not change those of the others.

    Args:
        groups: judged trajectories, those of one question in each group.
        failures: the rule for tool failures.
        estimator: name of the estimator.
    """
    treated = [failure_rules.treat(group, failures) for group in groups]
    advantages = ESTIMATORS[estimator]([[each.total for each in group] for group in treated])
    return [
        [each.apply(item, value) for item, each, value in zip(*parts, strict=True)]
        for parts in zip(groups, treated, advantages, strict=True)
    ]


def has_signal(group: Sequence[Trajectory], failures: failure_rules.Settings, *, epsilon: float = EQUAL) -> bool:
    """Whether something can be learned from a group by comparing its members.

    Args:
        group: judged trajectories of one question.
        failures: the rule for tool failures. Rewards may differ, and what differs may all be masked.
        epsilon: deviation below which rewards count as equal.
    """
    treated = failure_rules.treat(group, failures)
    totals = [each.total for each in treated]
    if not varies(totals, epsilon=epsilon):
        return False
    return any(each.advantage(value) for each, value in zip(treated, centred_advantages(totals), strict=True))


def _valid(totals: Sequence[float | None]) -> np.ndarray:
    return np.array([total for total in totals if total is not None], dtype=np.float64)


def _scaled(
    totals: Sequence[float | None], scale: Callable[[np.ndarray], float], epsilon: float = EQUAL
) -> list[float | None]:
    """Deviations from the mean of the valid rewards, times a scale; zeros where these do not differ."""
    if not varies(totals, epsilon=epsilon):
        return [None if total is None else 0.0 for total in totals]
    valid = _valid(totals)
    mean, factor = valid.mean(), scale(valid)
    return [None if total is None else float((total - mean) * factor) for total in totals]


def _regrouped(values: Sequence[float | None], groups: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    rest = iter(values)
    return [[next(rest) for _ in group] for group in groups]
