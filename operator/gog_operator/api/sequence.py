"""The order of a run's stages: curate, sft, stratify, grpo, evaluate, then what each arm repeats."""

from __future__ import annotations

from dataclasses import dataclass

from gog import spec as settings
from gog_operator.api import arms, names
from gog_operator.api.objects import GoGRun


@dataclass(frozen=True)
class Step:
    """One stage to be run. key: of its checkpoints in the store; settings: the run's, as its arm sees them;
    needs: keys of the checkpoints that it starts from, by kind of stage."""

    stage: str
    key: str
    name: str
    settings: settings.RunSpec
    needs: dict[str, str]


def steps(run: GoGRun) -> tuple[Step, ...]:
    main = tuple(stage for stage in settings.STAGES if stage not in run.spec.stages.skip)
    planned = [_step(run, run.spec, stage, "", ()) for stage in main]
    for arm in run.spec.arms:
        changed = arms.spec_of(run.spec, arm)
        own = arms.repeated(run.spec, changed)
        planned += [_step(run, changed, stage, arm.name, own) for stage in own]
    return tuple(planned)


def _step(run: GoGRun, seen: settings.RunSpec, stage: str, arm: str, own: tuple[str, ...]) -> Step:
    key = f"{stage}-{arm}" if arm else stage
    needs = {kind: f"{kind}-{arm}" if kind in own else kind for kind in settings.NEEDS[stage]}
    return Step(stage, key, names.child(run.name, key), seen, needs)


def tools_needed(planned: tuple[Step, ...]) -> bool:
    return any(settings.NEEDS_TOOLS[step.stage] for step in planned)
