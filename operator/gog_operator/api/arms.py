"""Arms: variants of a run's later stages, and which stages each of them repeats.

An arm has the run's settings with a few values changed. The first stage whose settings differ, and all later ones, run
again under a key of their own (`grpo-<arm>`); the earlier ones are shared. An arm cannot change what exists once for all
arms: data, store, endpoints, the run's lifecycle.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from gog import spec as settings
from gog.errors import UserError
from gog_operator.api import broken_rules, overrides, problems, strict

CHANGEABLE = ("stages", "tools", "model", "seed")
"""Fields of a run's spec that an arm may change."""


def spec_of(run: settings.RunSpec, arm: settings.Arm, *, where: str = "arms") -> settings.RunSpec:
    """The run's settings with the arm's changes.

    Args:
        run: The run's settings.
        arm: The arm. A value of null removes what the run sets.
        where: The arm's place in errors.

    Raises:
        UserError: a path or a value is not valid in the run's spec, or may not be changed, or breaks a rule of the table.
    """
    where = f"{where}: arm {arm.name}"
    body: dict[str, Any] = {"spec": run.as_given()}
    for path, value in arm.set.items():
        root = overrides.tokens(path)[1:2]
        if (root and root[0] not in CHANGEABLE) or path.startswith("stages.skip"):
            raise UserError(f"cannot change {path!r}", where=where, remedy=f"an arm may change {', '.join(CHANGEABLE)}")
        body = overrides.apply(body, path, value, where=where)
    try:
        changed = strict.validate(settings.RunSpec, strict.without_nulls(body)["spec"])
    except ValidationError as error:
        raise problems.explain(error, settings.RunSpec, where=where) from None
    broken = [(path.removeprefix("spec."), what, "") for path, what in broken_rules.broken(changed, cluster=False)]
    if broken:
        raise problems.joined(broken, where=where)
    return changed


def repeated(run: settings.RunSpec, changed: settings.RunSpec) -> tuple[str, ...]:
    """Stages that an arm repeats: the first one whose settings differ, and all later ones that are not skipped.

    Args:
        run: The run's settings.
        changed: The arm's settings.
    """
    differing = [stage for stage in settings.STAGES if _settings_of(stage, run) != _settings_of(stage, changed)]
    if not differing:
        return ()
    first = settings.STAGES.index(differing[0])
    return tuple(stage for stage in settings.STAGES[first:] if stage not in run.stages.skip)


def _settings_of(stage: str, run: settings.RunSpec) -> tuple[Any, ...]:
    own = getattr(run.stages, stage).model_dump(exclude_unset=True)
    return own, run.model, run.seed, run.tools if settings.NEEDS_TOOLS[stage] else None
