"""Arms: variants of a run's later stages, and which stages each of them repeats.

An arm's settings are the run's with a few values changed. The first stage that sees a difference, and all after it,
are run again under a key of their own (`grpo-<arm>`); everything before is shared. What all arms must share because
there is one of it (data, store, endpoints, the run's lifecycle) cannot be changed by an arm.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from gog import spec as settings
from gog.errors import UserError
from gog_operator.api import overrides, problems, strict

CHANGEABLE = ("stages", "tools", "model", "seed")


def spec_of(run: settings.RunSpec, arm: settings.Arm, *, where: str = "arms") -> settings.RunSpec:
    """The run's settings as the arm sees them. Raises UserError for a path or a value that the run does not know."""
    where = f"{where}: arm {arm.name}"
    body: dict[str, Any] = {"spec": run.model_dump(mode="json", by_alias=True, exclude_unset=True)}
    for path, value in arm.set.items():
        root = overrides.tokens(path)[1:2]
        if (root and root[0] not in CHANGEABLE) or path.startswith("stages.skip"):
            raise UserError(f"cannot change {path!r}", where=where, remedy=f"an arm may change {', '.join(CHANGEABLE)}")
        body = overrides.apply(body, path, value, where=where)
    try:
        return strict.validate(settings.RunSpec, strict.without_nulls(body)["spec"])
    except ValidationError as error:
        raise problems.explain(error, settings.RunSpec, where=where) from None


def repeated(run: settings.RunSpec, changed: settings.RunSpec) -> tuple[str, ...]:
    """Stages that an arm runs for itself: from the first that sees a difference."""
    differing = [stage for stage in settings.STAGES if _seen_by(stage, run) != _seen_by(stage, changed)]
    if not differing:
        return ()
    first = settings.STAGES.index(differing[0])
    return tuple(stage for stage in settings.STAGES[first:] if stage not in run.stages.skip)


def _seen_by(stage: str, run: settings.RunSpec) -> tuple[Any, ...]:
    own = getattr(run.stages, stage).model_dump(exclude_unset=True)
    return own, run.model, run.seed, run.tools if settings.NEEDS_TOOLS[stage] else None
