"""Weights of the trajectories that failures spared, for those that they excluded. Pure.

An episode survives if none of its calls failed, so long ones are excluded more often. What is then learned is the mean reward
*given survival*: of two ways to answer, that whose right answers take more calls looks worse than it is.

If each call of tool t fails with probability f_t, whatever it asks for and whatever happened before, an episode with c_t calls
survives with p = Π (1 - f_t)^c_t. So for every function g of episodes

    E[survived · g / p] = E[g] without failures

and a survivor of weight 1/p stands for those that its calls cost. f_t is the failed share of a step's calls of the tool;
calls that the cache answered cannot fail and do not count; those that joined
an equal one under way fail with it and do.

Weights are divided by their mean over the step, not over the group: a group that lost its long episodes has a small sum of
weights, and dividing by it would bring back most of the bias. Likewise a weighted trajectory is compared with the others of
its group, without itself (`gog.rewards`).

The correction is exact only as far as the assumption holds: not where failures depend on what is asked (a result too long for
the context, a page that always times out), and not in groups with a single survivor, which teach nothing. Weights above
MAX_WEIGHT are truncated, which bounds their variance and leaves some bias.

Source:
    Horvitz and Thompson, A Generalization of Sampling Without Replacement From a Finite Universe (1952); the division by the
    mean weight is Hájek's (1971).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from gog.tool_types import Decision
from gog.trajectory import Trajectory

MAX_WEIGHT = 10.0
"""Largest 1/p."""


def failure_ratios(trajectories: Iterable[Trajectory]) -> dict[str, float]:
    """Failed share of the calls of each tool, at most 1.

    Args:
        trajectories: all of a step, whole or outlines.
    """
    calls: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for item in trajectories:
        calls.update(_calls(item))
        failed.update(failure.tool for failure in item.failures)
    return {tool: min(1.0, failed[tool] / made) for tool, made in calls.items()}


def survival(item: Trajectory, ratios: Mapping[str, float]) -> float:
    """Probability that no call of an episode fails.

    Args:
        item: whole, or an outline.
        ratios: probability of a call's failure, by tool.
    """
    return math.prod((1 - ratios.get(tool, 0.0)) ** made for tool, made in _calls(item).items())


def weights(groups: Sequence[Sequence[Trajectory]], counts: Sequence[Sequence[bool]]) -> list[list[float]]:
    """Weights of a step's trajectories: 1 on average over those that count.

    Args:
        groups: all trajectories of a step.
        counts: whether each of them counts.

    Returns:
        A weight for each trajectory; 0 for one that does not count.
    """
    ratios = failure_ratios(item for group in groups for item in group)
    raw = [
        [
            1 / max(survival(item, ratios), 1 / MAX_WEIGHT) if counted else 0.0
            for item, counted in zip(*pair, strict=True)
        ]
        for pair in zip(groups, counts, strict=True)
    ]
    mean = sum(map(sum, raw)) / max(1, sum(map(sum, counts)))
    return [[value / mean if value else 0.0 for value in group] for group in raw]


def figures(groups: Sequence[Sequence[Trajectory]]) -> dict[str, float]:
    """Step metrics of weights and treatments.

    Args:
        groups: with advantages.
    """
    played = [item for group in groups for item in group]
    return {
        "treated": sum(bool(item.treatment) for item in played),
        "survivor_weight_max": max((item.weight for item in played), default=1.0),
    }


def _calls(item: Trajectory) -> Counter[str]:
    """Calls that could fail, by tool. An action that calls two tools counts for the last one."""
    made: Counter[str] = Counter()
    for turn in item.turns:
        seen = turn.observation
        if seen is not None and seen.tool and (not seen.cached or Decision.JOINED in seen.decisions):
            made[seen.tool] += seen.calls
    return made
