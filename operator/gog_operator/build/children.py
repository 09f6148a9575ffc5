"""The objects that a run owns: stages and endpoints, as they are created.

Only what the user set is handed down; a stage's defaults are its model family's preset, which the recipe reads. What
the stage starts from is pinned to a checkpoint (`sft/180`), so that a later attempt starts from the same one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gog import spec as settings
from gog_operator.api.objects import STAGE_KINDS, Endpoint, GoGRun, Stage
from gog_operator.build import names

if TYPE_CHECKING:
    from gog_operator.plan.sequence import Step


def stage(run: GoGRun, step: Step, inputs: dict[str, str], store: settings.StoreSpec) -> Stage:
    cls = STAGE_KINDS[step.stage]
    spec: dict[str, Any] = {
        "run": run.name,
        "stage": step.key,
        "seed": step.settings.seed,
        "model": _set_fields(step.settings.model),
        "data": _set_fields(step.settings.data),
        "store": _set_fields(store),
        "inputs": inputs,
        "endpoints": endpoint_names(run) if settings.NEEDS_TOOLS[step.stage] else {},
        "tools": _set_fields(step.settings.tools),
        "suspend": run.spec.suspend,
        "backoffLimit": run.spec.backoff_limit,
        "activeDeadlineSeconds": run.spec.active_deadline_seconds,
    }
    spec |= _set_fields(getattr(step.settings.stages, step.stage))
    if step.stage == "evaluate" and "policies" not in spec and "grpo" in run.spec.stages.skip:
        spec["policies"] = [each for each in settings.EvaluateSettings().policies if each != "grpo"]
    return cls.model_validate({**_head(run, cls.__name__, step.name), "spec": spec})


def endpoints(run: GoGRun) -> tuple[Endpoint, ...]:
    """One for every tool, and the policy's where the run has one."""
    made = []
    for role, name in endpoint_names(run).items():
        given = getattr(run.spec.endpoints, _snake(role))
        spec = {"role": role, "data": _set_fields(run.spec.data), **_set_fields(given)}
        made.append(Endpoint.model_validate({**_head(run, "Endpoint", name), "spec": spec}))
    return tuple(made)


def endpoint_names(run: GoGRun) -> dict[str, str]:
    """Name of the Endpoint of each role."""
    roles = (*settings.TOOLS, "policy") if run.spec.endpoints.policy else settings.TOOLS
    return {role: names.child(run.name, names.kebab(role)) for role in roles}


def _head(run: GoGRun, kind: str, name: str) -> dict[str, Any]:
    metadata = {
        "name": name,
        "labels": {"gog.dev/run": run.name},
        "ownerReferences": [run.owner_reference().model_dump(by_alias=True)],
    }
    if run.metadata.namespace:
        metadata["namespace"] = run.metadata.namespace
    return {"apiVersion": "gog.dev/v1alpha1", "kind": kind, "metadata": metadata}


def _set_fields(model: settings.Spec) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _snake(role: str) -> str:
    return names.kebab(role).replace("-", "_")
