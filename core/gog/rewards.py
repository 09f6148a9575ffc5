"""The reward of a trajectory and the advantages of a step, by estimators that the spec names. Pure.

r = (1 - λ) · accuracy + λ · format, λ = 0.1 [peer: DeepMMSearch-R1, MMSearch-R1; the formula is the paper's, its λ is
not public]. Accuracy is the judge's verdict; format is 1 if every turn is well formed and the last one is an answer.
Without a verdict there is no reward, because a judge error is not a wrong answer.

Penalties (of a search, of costs, of length) make the rewards of nearly every group differ, if only by a few tokens. In a group
whose members earned the same before them, a division by that deviation would give noise the advantages of right and wrong
answers. So there the deviation is taken as LEAST_DEVIATION at least, and a refill finds no signal. Without penalties every
advantage is what its paper writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from gog import failure_rules, survivors
from gog.spec.base import Advantages
from gog.trajectory import Reward, Trajectory

EQUAL = 1e-6
"""Deviation below which rewards count as equal."""
LEAST_DEVIATION = 0.1
"""Least deviation by which rewards are divided that differ by penalties only. A tenth of what a right answer earns: a difference
is scaled up ten times at most, so two right answers that differ by a hundredth of the reward differ by a tenth of a deviation."""
Totals = Sequence[float | None]
"""Rewards; None for a trajectory that is excluded."""
Weights = Sequence[float]
"""Weights of the same trajectories; those of excluded ones are not read."""
Value = TypeVar("Value")


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
    lost = (1 - format_weight) * (accuracy - kept)
    return Reward(accuracy=accuracy, format=fmt, cost=lost, overlong=overlong, total=round(total, 9))


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


def varies(totals: Totals, *, epsilon: float = EQUAL) -> bool:
    """Whether the rewards of a group's valid members differ, so that its members can be compared.

    Args:
        totals: reward of each member; None for one that is excluded.
        epsilon: deviation below which rewards count as equal.
    """
    valid = _valid(totals)
    return len(valid) > 1 and bool(valid.std() >= epsilon)


def group_advantages(
    totals: Totals, weights: Weights | None = None, earned: Totals | None = None, *, epsilon: float = EQUAL
) -> list[float | None]:
    """GRPO advantages of one group: (r - mean) / deviation over its valid members.

    The deviation is the population's, so that advantages have unit deviation exactly. Equal rewards, and fewer than two
    valid members, give zeros, because there is nothing to compare.

    Args:
        totals: reward of each member; None for one that is excluded.
        weights: of each member in mean and deviation; None for equal ones.
        earned: their rewards before penalties, as for `Estimator`.
        epsilon: deviation below which rewards count as equal.

    Returns:
        An advantage for each member, in order; None for one that is excluded.

    Source:
        Shao et al., DeepSeekMath (arXiv 2402.03300), section 4.1.
    """
    least = _least_deviation(earned)
    return _scaled(totals, weights, lambda valid, own: 1 / max(_deviation(valid, own), least), epsilon)


def centred_advantages(
    totals: Totals, weights: Weights | None = None, earned: Totals | None = None
) -> list[float | None]:
    """Advantages r - mean of one group, so that questions with a small deviation weigh no more than others.

    Source:
        Liu et al., Understanding R1-Zero-Like Training (Dr. GRPO, arXiv 2503.20783).
    """
    return _scaled(totals, weights, lambda valid, own: 1.0)


def leave_one_out_advantages(
    totals: Totals, weights: Weights | None = None, earned: Totals | None = None
) -> list[float | None]:
    """Advantages r - mean of the group's other valid members, an unbiased baseline. It equals n / (n - 1) · (r - mean).

    Source:
        Ahmadian et al., Back to Basics (RLOO, arXiv 2402.14740).
    """
    return _scaled(totals, weights, lambda valid, own: len(valid) / (len(valid) - 1))


def batch_advantages(
    groups: Sequence[Totals], weights: Sequence[Weights] | None = None, earned: Sequence[Totals] | None = None
) -> list[list[float | None]]:
    """Advantages (r - mean) / deviation over all valid trajectories of a step. A group of equal rewards has some, too.

    Source:
        Hu, REINFORCE++ (arXiv 2501.03262).
    """
    own, before = None if weights is None else _flat(weights), None if earned is None else _flat(earned)
    return _regrouped(group_advantages(_flat(groups), own, before), groups)


def group_batch_advantages(
    groups: Sequence[Totals], weights: Sequence[Weights] | None = None, earned: Sequence[Totals] | None = None
) -> list[list[float | None]]:
    """Advantages r - mean of the group, divided by the deviation of these over a step.

    Source:
        Hu, REINFORCE++ (arXiv 2501.03262), the variant with a group baseline.
    """
    centred = _flat(_by_group(centred_advantages)(groups, weights))
    if not varies(centred):
        return _regrouped([None if each is None else 0.0 for each in centred], groups)
    own = _own(centred, None if weights is None else _flat(weights))
    least = _least_deviation(None if earned is None else _flat(_by_group(centred_advantages)(earned, weights)))
    scale = 1 / max(_deviation(_valid(centred), own), least)
    return _regrouped([None if each is None else each * scale for each in centred], groups)


class Estimator(Protocol):
    """Makes advantages of rewards."""

    def __call__(
        self, groups: Sequence[Totals], weights: Sequence[Weights] | None = None, earned: Sequence[Totals] | None = None
    ) -> list[list[float | None]]:
        """Advantages of a step's trajectories. Where rewards do not differ (in the group, or in the step if that is what they
        are compared with) they are exactly 0.

        Args:
            groups: rewards; None for what is excluded.
            weights: of the trajectories in means and deviations; None for equal ones.
            earned: rewards before penalties, which decide whether a deviation is LEAST_DEVIATION at least; None for no
                penalties.

        Returns:
            Of the same shape as the rewards.
        """
        ...


def _by_group(of_group: Callable[[Totals, Weights | None, Totals | None], list[float | None]]) -> Estimator:
    def estimate(
        groups: Sequence[Totals], weights: Sequence[Weights] | None = None, earned: Sequence[Totals] | None = None
    ) -> list[list[float | None]]:
        return [
            of_group(group, None if weights is None else weights[place], None if earned is None else earned[place])
            for place, group in enumerate(groups)
        ]

    return estimate


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
    totals = [[each.total for each in group] for group in treated]
    weights = None
    if failures.corrects_survivors:
        weights = survivors.weights(groups, [[total is not None for total in group] for group in totals])
    advantages = ESTIMATORS[estimator](totals, weights, [_earned(group, failures) for group in groups])
    return [
        [each.apply(item, value, weight) for each, item, value, weight in zip(*parts, strict=True)]
        for parts in zip(treated, groups, advantages, weights or [[1.0] * len(group) for group in groups], strict=True)
    ]


def has_signal(group: Sequence[Trajectory], failures: failure_rules.Settings, *, epsilon: float = EQUAL) -> bool:
    """Whether something can be learned from a group by comparing its members, penalties aside.

    Args:
        group: judged trajectories of one question.
        failures: the rule for tool failures. Rewards may differ, and what differs may all be masked.
        epsilon: deviation below which rewards count as equal.
    """
    treated = failure_rules.treat(group, failures)
    totals = [each.total for each in treated]
    if not (varies(totals, epsilon=epsilon) and varies(_earned(group, failures), epsilon=epsilon)):
        return False
    return any(each.advantage(value) for each, value in zip(treated, centred_advantages(totals), strict=True))


def _earned(group: Sequence[Trajectory], failures: failure_rules.Settings) -> list[float | None]:
    """Rewards of a group before penalties, as the rule for failures lets them count."""
    before = [
        item
        if item.reward is None
        else item.model_copy(update={"reward": item.reward.model_copy(update={"total": item.reward.earned})})
        for item in group
    ]
    return [each.total for each in failure_rules.treat(before, failures)]


def _least_deviation(earned: Totals | None) -> float:
    """The least deviation by which rewards are divided: 0 where not only penalties make them differ."""
    return 0.0 if earned is None or varies(earned) else LEAST_DEVIATION


def _valid(totals: Totals) -> np.ndarray:
    return np.array([total for total in totals if total is not None], dtype=np.float64)


def _own(totals: Totals, weights: Weights | None) -> np.ndarray:
    """Weights of the valid ones."""
    given = [1.0] * len(totals) if weights is None else weights
    return np.array(
        [weight for total, weight in zip(totals, given, strict=True) if total is not None], dtype=np.float64
    )


def _deviation(valid: np.ndarray, own: np.ndarray) -> float:
    mean = (valid * own).sum() / own.sum()
    return float(np.sqrt(((valid - mean) ** 2 * own).sum() / own.sum()))


def _above_mean(valid: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Deviations from the mean.

    A member of large weight pulls the mean towards itself, so that its deviation is too small, and weighting it up would not
    make up for it. Therefore each is compared with the mean of the others, and scaled so that with equal weights the result
    is the deviation from the mean of all.
    """
    deviations = valid - (valid * own).sum() / own.sum()
    if (own == own[0]).all():
        return deviations
    return deviations * own.sum() / (own.sum() - own) * (len(own) - 1) / len(own)


def _scaled(
    totals: Totals,
    weights: Weights | None,
    scale: Callable[[np.ndarray, np.ndarray], float],
    epsilon: float = EQUAL,
) -> list[float | None]:
    """Deviations from the mean of the valid rewards, times a scale; zeros where these do not differ."""
    if not varies(totals, epsilon=epsilon):
        return [None if total is None else 0.0 for total in totals]
    valid, own = _valid(totals), _own(totals, weights)
    rest = iter(_above_mean(valid, own) * scale(valid, own))
    return [None if total is None else float(next(rest)) for total in totals]


def _flat(groups: Iterable[Iterable[Value]]) -> list[Value]:
    return [value for group in groups for value in group]


def _regrouped(values: Sequence[float | None], groups: Sequence[Totals]) -> list[list[float | None]]:
    rest = iter(values)
    return [[next(rest) for _ in group] for group in groups]
