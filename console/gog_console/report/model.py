"""Data of a report: plain values, gathered once and rendered without reading files.

Most values are optional, because a report is also written for running, failed and damaged runs. What could not be read
is a `Problem`, which is shown in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from gog import behaviour
from gog.calls.spend import Spend
from gog.levels import Graded
from gog.spec import POLICIES, STAGES
from gog.trajectory import Trajectory
from gog_console.resources import Problem

Row = Mapping[str, Any]
"""A row of metrics or results: values by name, None where missing."""
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Stage:
    """One stage of a run or of an arm."""

    key: str
    """Key in the store: `grpo`, `grpo-no-gaze`."""
    kind: str
    """curate, sft, stratify, grpo or evaluate."""
    name: str = ""
    """Name of its object."""
    condition: str = "Not started"
    """State in one word or two."""
    message: str = ""
    """Reason for the state."""
    attempts: int = 0
    """Attempts so far."""
    started: datetime | None = None
    """Start of the first attempt."""
    completed: datetime | None = None
    """Completion or failure."""
    checkpoint: str = ""
    """Newest checkpoint: `grpo/120`."""
    image: str = ""
    """Image of its newest attempt, by digest where a node reported one; empty on one machine."""
    step: int | None = None
    """Steps done."""
    total: int | None = None
    """Steps in all."""
    steps: tuple[int, ...] = ()
    """Committed steps, ascending."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Spec of its object."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Meta data of its newest checkpoint."""

    @property
    def arm(self) -> str:
        """Name of the arm, empty on the main line."""
        return arm_of(self.key, self.kind)

    @property
    def running(self) -> bool:
        return self.started is not None and self.condition not in ("Complete", "Failed", "Suspended", "Not started")

    def seconds(self, now: datetime) -> float | None:
        """Seconds from its start to its end, or until now; from its checkpoint if the object has no times."""
        if self.started and (self.completed or self.running):
            return max(0.0, ((self.completed or now) - self.started).total_seconds())
        return number(self.meta.get("seconds"))


@dataclass(frozen=True)
class Evaluation:
    """results.json of an evaluate stage."""

    rows: tuple[Row, ...]
    """One row per policy and benchmark."""
    comparisons: tuple[Row, ...] = ()
    """Paired differences between policies."""
    means: tuple[Row, ...] = ()
    """Macro and micro means over benchmarks, one row per policy; none for a single benchmark."""
    served_by: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Answers of the judge and the endpoint by the model that they name."""


@dataclass(frozen=True)
class Sample:
    """A trajectory and the checkpoint that contains it."""

    trajectory: Trajectory
    """The record."""
    key: str
    """Store key of the stage."""
    kind: str
    """Kind of the stage."""
    step: int
    """Step of the checkpoint."""

    @property
    def arm(self) -> str:
        """Name of the arm, empty on the main line."""
        return arm_of(self.key, self.kind)

    @property
    def policy(self) -> str:
        """Name of the policy that produced the trajectory."""
        return self.trajectory.policy or {"curate": "teacher", "grpo": "grpo"}.get(self.kind, self.kind)

    @property
    def outcome(self) -> str:
        """correct, wrong, excluded, or unjudged (demonstrations have no reward)."""
        reward = self.trajectory.reward
        if self.trajectory.excluded:
            return "excluded"
        if reward is None or reward.accuracy is None:
            return "unjudged"
        return "correct" if reward.accuracy >= 0.5 else "wrong"

    @property
    def behaviour(self) -> str:
        """Behaviour class, as in `gog.behaviour`."""
        return behaviour.classify(self.trajectory)


@dataclass(frozen=True)
class Data:
    """Everything that a report shows of a run."""

    name: str
    """Name of the run."""
    now: datetime
    """Time of the report."""
    condition: str = "Unknown"
    """State of the run."""
    message: str = ""
    """Reason for the state."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Spec of the run's object."""
    created: datetime | None = None
    """Creation of the run's object."""
    completed: datetime | None = None
    """Completion or failure of the run."""
    stages: tuple[Stage, ...] = ()
    """Stages of the main line, then of the arms."""
    endpoints: tuple[Row, ...] = ()
    """Specs of the endpoints, with `name` and `ready`."""
    curves: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    """Metric log by stage key."""
    levels: Mapping[str, tuple[Graded, ...]] = field(default_factory=dict)
    """Graded questions by stage key."""
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    """Evaluation results by stage key."""
    samples: tuple[Sample, ...] = ()
    """Selected trajectories."""
    images: Mapping[str, bytes] = field(default_factory=dict)
    """PNG bytes by content hash."""
    recorded: int = 0
    """Trajectories that were read, of which `samples` are shown."""
    spend: Spend = field(default_factory=Spend)
    """What calls of tools and of the judge cost, as far as it was reported."""
    profiles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the traces that the profiler wrote, by stage key."""
    problems: tuple[Problem, ...] = ()
    """What could not be read."""
    events: tuple[Row, ...] = ()
    """Events in order."""

    def stage(self, key: str) -> Stage | None:
        """Stage by its store key."""
        return next((stage for stage in self.stages if stage.key == key), None)

    def main(self, kind: str, kept: Mapping[str, Kept]) -> Kept | None:
        """The main line's entry for a kind of stage."""
        return next((value for key, value in self.by_arm(kind, kept).items() if key == ""), None)

    def by_arm(self, kind: str, kept: Mapping[str, Kept]) -> dict[str, Kept]:
        """Entries for a kind of stage by arm; the main line comes first, under the empty name."""
        found = {stage.arm: kept[stage.key] for stage in self.stages if stage.kind == kind and stage.key in kept}
        return dict(sorted(found.items()))


def kind_of(key: str) -> str:
    """Kind of a stage from its store key: grpo for `grpo-no-gaze`; empty for an unknown key."""
    return next((kind for kind in STAGES if key == kind or key.startswith(f"{kind}-")), "")


def arm_of(key: str, kind: str) -> str:
    """Arm of a stage from its store key; empty for the main line."""
    return key.removeprefix(kind).lstrip("-")


def order_of(stage: Stage) -> tuple[str, int]:
    """Sort key: the main line in stage order, then each arm."""
    return stage.arm, STAGES.index(stage.kind) if stage.kind in STAGES else len(STAGES)


def policy_order(policy: str) -> tuple[int, str]:
    """Sort key: baselines first, the trained policy last."""
    order = list(POLICIES)
    return (order.index(policy) if policy in POLICIES else len(order)), policy


def number(value: object) -> float | None:
    """The value as a finite float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value == value and abs(value) != float("inf") else None


def column(rows: Sequence[Row], name: str) -> list[float | None]:
    """One metric over all rows; None where it is missing."""
    return [number(row.get(name)) for row in rows]


def spread(items: Sequence[Kept], count: int) -> list[Kept]:
    """Up to `count` items spread over the sequence, including the first and the last.

    >>> spread([10, 20, 30, 40, 50], 3)
    [10, 30, 50]
    """
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]
