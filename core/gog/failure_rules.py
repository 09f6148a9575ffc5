"""What a trajectory with a tool failure teaches: the rules that `stages.grpo.toolFailures` chooses from. Pure.

A tool failure is the infrastructure's fault, yet the reward of what follows depends on it. Trainers differ in what they make
of that, and it decides what the policy learns. A rule says of each trajectory of a group which reward counts in the group's
statistics, which of its turns are learned, and how low its advantage may be. It applies after the rollouts of a step and
before its advantages, so it is independent of loss and estimator. A new rule is a function and a row of RULES.

A judge error is no tool failure: without a verdict there is no reward, so every rule excludes the trajectory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gog.spec.base import ToolFailures
from gog.spec.objective import FATAL_FAILURES
from gog.trajectory import Segment, Trajectory

if TYPE_CHECKING:
    from gog.spec import GRPOSettings


@dataclass(frozen=True)
class Settings:
    """A stage's choice."""

    rule: ToolFailures = "exclude"
    """Name of the rule."""
    fatal_failures: int = FATAL_FAILURES
    """Turns in a row with a tool failure that are fatal; only for fatal-clamp."""
    corrects_survivors: bool = False
    """Whether what is left counts for what is excluded (gog.survivors); only for exclude."""

    @classmethod
    def of(cls, cfg: GRPOSettings) -> Settings:
        """Those of a GRPO stage."""
        return cls(cfg.tool_failures, cfg.fatal_failures, cfg.survivor_correction == "inverse-probability")


@dataclass(frozen=True)
class Treatment:
    """How one trajectory takes part in learning."""

    total: float | None
    """Its reward in the group's statistics; None: it counts neither there nor in the loss."""
    turns: int | None = None
    """Turns that are learned, from the first one on; None: all."""
    floor: float = -math.inf
    """Its lowest advantage."""
    excluded: str = ""
    """Why it does not count; empty if it does."""
    note: str = ""
    """What its failures changed although it counts; empty if nothing."""

    def advantage(self, value: float | None) -> float | None:
        """Its advantage, 0 where no turn is learned.

        Args:
            value: the estimator's; None if it is excluded.
        """
        if value is None:
            return None
        return 0.0 if self.turns == 0 else max(value, self.floor)

    def apply(self, item: Trajectory, advantage: float | None, weight: float) -> Trajectory:
        """The trajectory with its advantage, and with what is not to be learned of it.

        Args:
            item: whole, or an outline.
            advantage: the estimator's; None if it is excluded.
            weight: by which the advantage is multiplied.
        """
        update: dict[str, object] = {
            "advantage": self.advantage(None if advantage is None else advantage * weight),
            "weight": weight,
            "excluded": self.excluded,
            "treatment": self.note,
        }
        if self.turns is not None:
            update["segments"] = tuple(masked(item.segments, self.turns))
        return item.model_copy(update=update)


OfFailed = Callable[[Trajectory, float, Settings], Treatment]
"""From a trajectory with a tool failure and its reward to its treatment."""


@dataclass(frozen=True)
class Rule:
    """A rule for tool failures."""

    of_failed: OfFailed
    """Treats a trajectory with a tool failure. Others count as they are."""
    spoils_group: bool = False
    """Whether one such trajectory excludes its whole group."""


def _exclude(item: Trajectory, total: float, settings: Settings) -> Treatment:
    return Treatment(None, excluded=cause(item))


def _keep(item: Trajectory, total: float, settings: Settings) -> Treatment:
    return Treatment(total)


def _zero(item: Trajectory, total: float, settings: Settings) -> Treatment:
    return Treatment(0.0, note=f"learned with reward 0: {cause(item)}")


def _mask(item: Trajectory, total: float, settings: Settings) -> Treatment:
    """The model chose the call that failed before it failed, but what its choice earned is the failure's doing. So this turn
    is not learned either, as in OpenSearch-VL."""
    first = failed_run(item, 1)
    return Treatment(total, turns=first, note=f"{_learned(first)}: {cause(item)}")


def _fatal_clamp(item: Trajectory, total: float, settings: Settings) -> Treatment:
    """OpenSearch-VL, with two differences: mistakes of the model are no failures, and an episode without an answer is not
    fatal for that.

    Source:
        shawn0728/OpenSearch-VL @ c5c02a4: `_find_fatal_step_index` and the reward of its workflow, `_apply_fatal_step_mask`
        of its engine, the clamp in its trainer. Paper: arXiv 2605.05185.
    """
    first = failed_run(item, settings.fatal_failures)
    if first is None:
        return Treatment(total)
    words = (
        f"{_learned(first)}, and advantage not below 0: {settings.fatal_failures} failed turns in a row, {cause(item)}"
    )
    return Treatment(total if first else 0.0, turns=first, floor=0.0, note=words)


RULES: dict[ToolFailures, Rule] = {
    "exclude": Rule(_exclude),
    "mask": Rule(_mask),
    "drop": Rule(_exclude, spoils_group=True),
    "keep": Rule(_keep),
    "zero": Rule(_zero),
    "fatal-clamp": Rule(_fatal_clamp),
}
"""By their name in `stages.grpo.toolFailures`."""


def treat(group: Sequence[Trajectory], settings: Settings) -> list[Treatment]:
    """How each trajectory of a group takes part in learning.

    Args:
        group: the judged trajectories of one question.
        settings: names the rule.
    """
    rule = RULES[settings.rule]
    spoiler = next((item for item in group if item.failures), None) if rule.spoils_group else None
    return [_treat(item, rule, settings, spoiler) for item in group]


def _treat(item: Trajectory, rule: Rule, settings: Settings, spoiler: Trajectory | None) -> Treatment:
    if item.reward is None or item.reward.total is None:
        return Treatment(None, excluded="judge")
    if item.failures:
        return rule.of_failed(item, item.reward.total, settings)
    if spoiler is not None:
        return Treatment(None, excluded=f"sample {spoiler.sample} of its group has a {cause(spoiler)}")
    return Treatment(item.reward.total)


def excluded(item: Trajectory, rule: ToolFailures) -> str:
    """Why a trajectory does not count, whatever its group; empty if it counts.

    Args:
        item: judged.
        rule: name of the rule.
    """
    return treat([item], Settings(rule))[0].excluded


def cause(item: Trajectory) -> str:
    """The first tool failure of a trajectory that has one."""
    return f"tool failure: {item.failures[0].tool} {item.failures[0].kind}"


def failed_run(item: Trajectory, length: int) -> int | None:
    """Index of the first turn of the first so many turns in a row with a tool failure; None without such a run.

    Args:
        item: whole, or an outline.
        length: turns in a row, at least 1. A turn with several calls failed if one of them did.
    """
    in_a_row = 0
    for index, turn in enumerate(item.turns):
        in_a_row = in_a_row + 1 if turn.observation and turn.observation.failures else 0
        if in_a_row == length:
            return index - length + 1
    return None


def masked(segments: Sequence[Segment], turns: int) -> Iterator[Segment]:
    """Segments of which only those of the first turns are learned.

    Args:
        segments: of a trajectory, with one of the model for each turn.
        turns: that are learned.
    """
    turn = 0
    for segment in segments:
        is_turn = segment.source == "model"
        yield segment.model_copy(update={"masked": True}) if is_turn and turn >= turns else segment
        turn += is_turn


def unmasked(segments: Sequence[Segment]) -> list[Segment]:
    """Segments as the engine sampled them, all of the model's learned."""
    return [segment.model_copy(update={"masked": False}) if segment.masked else segment for segment in segments]


def _learned(turns: int | None) -> str:
    if not turns:
        return "no turn is learned"
    return "only its first turn is learned" if turns == 1 else f"only its first {turns} turns are learned"
