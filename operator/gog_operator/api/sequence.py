"""The order of a run's stages: curate, sft, stratify, grpo, evaluate, then the stages that each arm repeats."""

from __future__ import annotations

from dataclasses import dataclass

from gog import spec as settings
from gog_operator.api import arms, names
from gog_operator.api.objects import GoGRun


@dataclass(frozen=True)
class Step:
    """One stage of a run's sequence."""

    stage: str
    """curate, sft, stratify, grpo or evaluate."""
    key: str
    """Key of its checkpoints in the store: `grpo`, `grpo-no-gaze`."""
    name: str
    """Name of its object."""
    settings: settings.RunSpec
    """The run's settings with the changes of its arm."""
    needs: dict[str, str]
    """Keys of the checkpoints that it starts from, by stage."""


def steps(run: GoGRun) -> tuple[Step, ...]:
    """The stages of a run in order.

    Raises:
        UserError: an arm changes something that it may not.
    """
    main = tuple(stage for stage in settings.STAGES if stage not in run.spec.stages.skip)
    planned = [_step(run, run.spec, stage, "", ()) for stage in main]
    for arm in run.spec.arms:
        changed = arms.spec_of(run.spec, arm)
        own = arms.repeated(run.spec, changed)
        planned += [_step(run, changed, stage, arm.name, own) for stage in own]
    return tuple(planned)


def _step(run: GoGRun, changed: settings.RunSpec, stage: str, arm: str, own: tuple[str, ...]) -> Step:
    key = f"{stage}-{arm}" if arm else stage
    needs = {kind: f"{kind}-{arm}" if kind in own else kind for kind in settings.NEEDS[stage]}
    return Step(stage, key, names.child(run.name, key), changed, needs)


def tools_needed(planned: tuple[Step, ...]) -> bool:
    """Whether any of the stages calls tools."""
    return any(settings.NEEDS_TOOLS[step.stage] for step in planned)
