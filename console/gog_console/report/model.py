"""What a report is made of: plain values, gathered once and rendered without touching a disk.

Everything that may be missing may be missing here: a report is written for runs that are still going, that failed, and
whose files are torn. What could not be read is a `Problem`, shown in its place; it never stops the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from gog import behaviour
from gog.levels import Graded
from gog.spec import POLICIES, STAGES
from gog.trajectory import Trajectory

Row = Mapping[str, Any]
"""A line of metrics or of results: numbers by name, None where there is none."""
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Problem:
    """Something that could not be read. where: file or checkpoint; stage: key of the stage it belongs to, if any."""

    where: str
    what: str
    stage: str = ""


@dataclass(frozen=True)
class Stage:
    """One stage of a run or of an arm. key: its name in the store; steps: committed ones, ascending."""

    key: str
    kind: str
    name: str = ""
    condition: str = "Not started"
    message: str = ""
    attempts: int = 0
    started: datetime | None = None
    completed: datetime | None = None
    checkpoint: str = ""
    step: int | None = None
    total: int | None = None
    steps: tuple[int, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arm(self) -> str:
        """Name of the arm, empty on the main line."""
        return arm_of(self.key, self.kind)

    @property
    def running(self) -> bool:
        return self.started is not None and self.condition not in ("Complete", "Failed", "Suspended", "Not started")

    def seconds(self, now: datetime) -> float | None:
        """From its first start to its end, or until now while it runs; what its checkpoint says if no times are known."""
        if self.started and (self.completed or self.running):
            return max(0.0, ((self.completed or now) - self.started).total_seconds())
        return number(self.meta.get("seconds"))


@dataclass(frozen=True)
class Evaluation:
    """results.json of an evaluate stage."""

    rows: tuple[Row, ...]
    comparisons: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Sample:
    """A trajectory and where it was recorded. step: of the checkpoint that holds it."""

    trajectory: Trajectory
    key: str
    kind: str
    step: int

    @property
    def arm(self) -> str:
        return arm_of(self.key, self.kind)

    @property
    def policy(self) -> str:
        return self.trajectory.policy or {"curate": "teacher", "grpo": "grpo"}.get(self.kind, self.kind)

    @property
    def outcome(self) -> str:
        """correct, wrong, excluded, or unjudged (demonstrations carry no reward)."""
        reward = self.trajectory.reward
        if self.trajectory.excluded:
            return "excluded"
        if reward is None or reward.accuracy is None:
            return "unjudged"
        return "correct" if reward.accuracy >= 0.5 else "wrong"

    @property
    def behaviour(self) -> str:
        return behaviour.classify(self.trajectory)


@dataclass(frozen=True)
class Data:
    """A run as the report sees it. curves, levels, evaluations: by stage key; images: PNG bytes by content hash;
    recorded: how many trajectories were read, of which `samples` are shown."""

    name: str
    now: datetime
    condition: str = "Unknown"
    message: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    created: datetime | None = None
    completed: datetime | None = None
    stages: tuple[Stage, ...] = ()
    endpoints: tuple[Row, ...] = ()
    curves: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    levels: Mapping[str, tuple[Graded, ...]] = field(default_factory=dict)
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    images: Mapping[str, bytes] = field(default_factory=dict)
    recorded: int = 0
    problems: tuple[Problem, ...] = ()
    events: tuple[Row, ...] = ()

    def stage(self, key: str) -> Stage | None:
        return next((stage for stage in self.stages if stage.key == key), None)

    def main(self, kind: str, kept: Mapping[str, Kept]) -> Kept | None:
        """What the main line keeps of a kind of stage."""
        return next((value for key, value in self.by_arm(kind, kept).items() if key == ""), None)

    def by_arm(self, kind: str, kept: Mapping[str, Kept]) -> dict[str, Kept]:
        """What each arm keeps of a kind of stage, the main line first under the empty name."""
        found = {stage.arm: kept[stage.key] for stage in self.stages if stage.kind == kind and stage.key in kept}
        return dict(sorted(found.items()))


def kind_of(key: str) -> str:
    """Kind of a stage by its key in the store: `grpo-no-gaze` is a grpo; empty for a stranger."""
    return next((kind for kind in STAGES if key == kind or key.startswith(f"{kind}-")), "")


def arm_of(key: str, kind: str) -> str:
    return key.removeprefix(kind).lstrip("-")


def order_of(stage: Stage) -> tuple[str, int]:
    """The main line first, in the order of the stages; then each arm."""
    return stage.arm, STAGES.index(stage.kind) if stage.kind in STAGES else len(STAGES)


def policy_order(policy: str) -> tuple[int, str]:
    """Baselines first, the trained policy last."""
    return (POLICIES.index(policy) if policy in POLICIES else len(POLICIES)), policy


def number(value: object) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value == value and abs(value) != float("inf") else None


def column(rows: Sequence[Row], name: str) -> list[float | None]:
    """One metric over all rows; None where it is missing."""
    return [number(row.get(name)) for row in rows]


def spread(items: Sequence[Kept], count: int) -> list[Kept]:
    """Up to `count` items over the whole range, the first and the last included.

    >>> spread([10, 20, 30, 40, 50], 3)
    [10, 30, 50]
    """
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]
