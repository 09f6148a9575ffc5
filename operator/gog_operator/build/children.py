"""The objects that a run owns: stages and endpoints, as they are created.

Only what the user set is handed down; a stage's defaults are its model family's preset, which the recipe reads. What
the stage starts from is pinned to a checkpoint (`sft/180`), so that a later attempt starts from the same one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from gog import catalog
from gog import spec as settings
from gog_operator.api import names
from gog_operator.api.objects import STAGE_KINDS, Endpoint, GoGRun, Stage
from gog_operator.api.sequence import Step


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
        "endpoints": tool_names(run) if settings.NEEDS_TOOLS[step.stage] else {},
        "backends": backends(run) if settings.NEEDS_TOOLS[step.stage] else {},
        "endpointSecrets": keys(run) if settings.NEEDS_TOOLS[step.stage] else {},
        "tools": _set_fields(step.settings.tools),
        "suspend": run.spec.suspend,
        "backoffLimit": run.spec.backoff_limit,
        "activeDeadlineSeconds": run.spec.active_deadline_seconds,
        **_placement(run, run.spec.images.trainer),
        **_given(retention=run.spec.retention, promoteTo=run.spec.promote_to, traces=run.spec.traces),
    }
    spec |= _set_fields(getattr(step.settings.stages, step.stage))
    if step.stage == "evaluate" and "policies" not in spec and "grpo" in run.spec.stages.skip:
        spec["policies"] = [each for each in settings.EvaluateSettings().policies if each != "grpo"]
    return cls.model_validate({**_head(run, cls.__name__, step.name), "spec": spec})


def endpoints(run: GoGRun, store: settings.StoreSpec) -> tuple[Endpoint, ...]:
    """One for every tool. The policy's is made when there is a policy to serve."""
    return tuple(_endpoint(run, role, store, run.spec.images.tools) for role in settings.TOOLS)


def policy(run: GoGRun, store: settings.StoreSpec, version: str) -> Endpoint:
    """Serves a trained checkpoint of the run."""
    return _endpoint(run, "policy", store, run.spec.images.trainer, base=run.spec.model.base, version=version)


def tool_names(run: GoGRun) -> dict[str, str]:
    """Name of the Endpoint of each tool."""
    return {role: names.child(run.name, names.kebab(role)) for role in settings.TOOLS}


def backends(run: GoGRun) -> dict[str, str]:
    """What answers each tool that the run starts, so that answers recorded of one back end, or of one dataset, are not
    taken for another's. A server that exists already is known by its URL."""
    made = {}
    for server in catalog.TOOLS:
        given = getattr(run.spec.endpoints, server.field)
        about = {"options": given.options, "data": _set_fields(run.spec.data) if server.reads_data else {}}
        digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=6).hexdigest()
        if given.url is None:
            made[server.name] = f"{given.backend}#{digest}"
    return made


def keys(run: GoGRun) -> dict[str, str]:
    """Secret of each tool that asks for a key."""
    given = {role: getattr(run.spec.endpoints, _snake(role)).secret_name for role in settings.TOOLS}
    return {role: secret for role, secret in given.items() if secret is not None}


def policy_name(run: GoGRun) -> str:
    return names.child(run.name, "policy")


def _endpoint(run: GoGRun, role: str, store: settings.StoreSpec, image: str | None, **more: str) -> Endpoint:
    given = getattr(run.spec.endpoints, _snake(role))
    spec = {"role": role, "store": _set_fields(store), **more, **_placement(run, image), **_set_fields(given)}
    if role != "policy":
        spec["data"] = _set_fields(run.spec.data)
    return Endpoint.model_validate({**_head(run, "Endpoint", names.child(run.name, names.kebab(role))), "spec": spec})


def _placement(run: GoGRun, image: str | None) -> dict[str, Any]:
    """Where the run's pods go and as whom; only what the user set."""
    scheduling = run.spec.scheduling if "scheduling" in run.spec.model_fields_set else None
    return _given(scheduling=scheduling, serviceAccountName=run.spec.service_account_name, image=image)


def _given(**fields: Any) -> dict[str, Any]:
    """Fields that are set, as a document has them."""
    set_ = {name: value for name, value in fields.items() if value is not None}
    return {name: _set_fields(value) if isinstance(value, settings.Spec) else value for name, value in set_.items()}


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
