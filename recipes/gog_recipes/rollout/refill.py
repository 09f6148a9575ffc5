"""Replaces the groups of a step that carry no signal by those of further questions, within a bound.

A group whose rewards are all equal teaches nothing, so a step of many such groups has a small, noisy batch. With
`max_oversampling` above 1 the step plays further questions until as many groups as it wants carry a signal. Each round
plays as many as the share of groups with a signal so far makes likely to suffice. Groups with a signal are never
discarded, because their episodes were paid for; so a step may hold somewhat more than it wants. What is missing when the
bound is reached is made up of groups without a signal, as without a refill.

Every question of a step is another one, and which ones may follow is given by the caller, so a resumed step repeats its
rounds.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gog import wording
from gog.errors import UserError
from gog.spec import GRPOConfig
from gog.spec.base import Advantages
from gog.trajectory import Trajectory
from gog_recipes.rollout.played import Played

Group = list[Trajectory]
Question = TypeVar("Question")
SETTING = "stages.grpo.maxOversampling"


@dataclass(frozen=True)
class Batch:
    """The groups from which a step learns; alike on all ranks, as in `Played`."""

    groups: list[Group]
    """As many as the step wants, or somewhat more; in the order of their questions."""
    own: list[int]
    """Which of `groups` this rank played, by index."""
    replaced: list[Group]
    """Groups without a signal that others replace."""
    missing: int
    """Groups with a signal that were wanted and not found."""


def bound(wanted: int, max_oversampling: float) -> int:
    """Questions that a step may play at most."""
    return math.floor(wanted * max_oversampling + 1e-9)


def require(cfg: GRPOConfig, advantages: Advantages, available: int) -> None:
    """Raises UserError for a refill that cannot be filled.

    Args:
        cfg: settings of the stage
        advantages: estimator of the stage's advantages
        available: questions of the chosen levels
    """
    if cfg.max_oversampling == 1:
        return
    most = bound(cfg.questions_per_step, cfg.max_oversampling)
    if advantages == "batch":
        raise UserError(
            "with advantages batch a group of equal rewards carries a signal, so there is nothing to refill",
            where=SETTING, remedy="set it to 1, or advantages to group_batch",
        )  # fmt: skip
    if most == cfg.questions_per_step:
        raise UserError(
            f"{cfg.max_oversampling:g} times questionsPerStep {most} leaves no further question to play",
            where=SETTING,
            remedy=f"set it to {math.ceil(100 * (most + 1) / most) / 100:g} or more, or to 1 for no refill",
        )
    if most > available:
        raise UserError(
            f"a step may play {most} different questions, and the chosen levels have {available}",
            where=SETTING,
            remedy=f"set it to {math.floor(100 * available / cfg.questions_per_step) / 100:g} or less, add a level, or lower "
            "questionsPerStep",
        )


async def rounds(
    play: Callable[[Sequence[Question], bool], Awaitable[Played]],
    first: Sequence[Question],
    further: Sequence[Question],
    *,
    signals: Callable[[Sequence[Group]], int],
    may_refill: Callable[[Sequence[Group]], bool],
) -> Played:
    """Plays a step's questions, then further ones while groups with a signal are missing. All ranks at once.

    Args:
        play: plays questions; the second argument is whether they add to the play before
        first: the step's questions, as many as groups with a signal are wanted
        further: that may be played after them, in this order
        signals: counts the groups with a signal
        may_refill: whether the groups so far are worth adding to

    Returns:
        All rounds as one play.
    """
    found, left = await play(first, False), list(further)
    count = len(first)
    while left and may_refill(found.groups) and (missing := len(first) - signals(found.groups)) > 0:
        likely = math.ceil(missing * count / max(1, signals(found.groups)))
        some, left = left[:likely], left[likely:]
        found, count = joined(found, await play(some, True)), count + len(some)
    return found


def joined(before: Played, after: Played) -> Played:
    """Two plays as one."""
    own = [*before.own, *(len(before.groups) + index for index in after.own)]
    return Played([*before.groups, *after.groups], own, [*before.skipped, *after.skipped])


def batch(played: Played, wanted: int, has_signal: Callable[[Group], bool]) -> Batch:
    """The groups from which a step learns: all with a signal, filled up to `wanted` with the first ones without.

    Args:
        played: all rounds of the step
        wanted: groups of a step
        has_signal: of a group

    >>> batch(Played([[], []], [0], []), 2, bool).missing
    2
    """
    signal = [has_signal(group) for group in played.groups]
    room = max(0, wanted - sum(signal))
    silent = [index for index, each in enumerate(signal) if not each]
    left_out = set(silent[room:])
    chosen = [index for index in range(len(played.groups)) if index not in left_out]
    own = set(played.own)
    return Batch(
        groups=[played.groups[index] for index in chosen],
        own=[place for place, index in enumerate(chosen) if index in own],
        replaced=[played.groups[index] for index in silent[room:]],
        missing=room,
    )


def line(step: int, found: int, wanted: int, max_oversampling: float) -> str:
    """What to log where the bound was reached first."""
    return (
        f"step {step}: {found} of {wording.plural(wanted, 'group')} carry a signal, although "
        f"{SETTING} {max_oversampling:g} was used up: raise it, or train on a level of other difficulty"
    )
