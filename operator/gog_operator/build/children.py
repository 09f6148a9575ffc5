"""The objects that a run owns: stages and Endpoints, as they are created.

A child receives only what the user set; a stage's defaults are in its model family's preset, which the recipe reads. The
inputs of a stage are pinned to a checkpoint (`sft/180`), so that a later attempt starts from the same one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from gog import catalog
from gog import spec as settings
from gog_operator.api import names, patches
from gog_operator.api.meta import API_VERSION, RUN_LABEL
from gog_operator.api.objects import STAGE_KINDS, Endpoint, GoGRun, Stage
from gog_operator.api.sequence import Step

DEFAULT_RANK = 64
"""Rank up to which vLLM takes adapters as gog starts it (gog_tools.policy.vllm_server)."""


def stage(run: GoGRun, step: Step, inputs: dict[str, str], store: settings.StoreSpec) -> Stage:
    """The stage object of a step.

    Args:
        run: The run.
        step: The step of its sequence.
        inputs: Checkpoints that the stage starts from, by stage: `{"sft": "sft/180"}`.
        store: The run's store, or the cluster's default.
    """
    cls = STAGE_KINDS[step.stage]
    spec: dict[str, Any] = {
        "run": run.name,
        "stage": step.key,
        "seed": step.settings.seed,
        "model": _set_fields(step.settings.model),
        "data": _set_fields(step.settings.data),
        "store": _set_fields(store),
        "inputs": inputs,
        "endpoints": (tool_names(run) | sampler(run, step)) if settings.NEEDS_TOOLS[step.stage] else {},
        "backends": backends(run) if settings.NEEDS_TOOLS[step.stage] else {},
        "endpointSecrets": (keys(run) | sampler_keys(run, step) | compared_keys(step))
        if settings.NEEDS_TOOLS[step.stage]
        else {},
        "tools": _set_fields(step.settings.tools),
        "suspend": run.spec.suspend,
        "backoffLimit": run.spec.backoff_limit,
        "activeDeadlineSeconds": run.spec.active_deadline_seconds,
        "queueDeadlineSeconds": run.spec.queue_deadline_seconds,
        **_placement(run, run.spec.images.trainer),
        **_given(retention=run.spec.retention, promoteTo=run.spec.promote_to, traces=run.spec.traces),
    }
    spec |= _set_fields(getattr(step.settings.stages, step.stage))
    if step.stage == "evaluate" and "policies" not in spec and "grpo" in run.spec.stages.skip:
        spec["policies"] = [each for each in settings.EvaluateSettings().policies if each != "grpo"]
    return cls.model_validate({**_head(run, cls.__name__, step.name), "spec": spec})


def scheduling_patch(stage: Stage, run: GoGRun) -> dict[str, Any]:
    """The merge patch that gives a stage the scheduling of its run; empty where it has that."""
    return patches.merge_patch(_set_fields(stage.spec.scheduling), _set_fields(run.spec.scheduling))


def endpoints(run: GoGRun, store: settings.StoreSpec) -> tuple[Endpoint, ...]:
    """One Endpoint for each tool. The policy's Endpoint is created when there is a policy to serve."""
    return tuple(_endpoint(run, tool.name, store, run.spec.images.tools) for tool in tools(run))


def policy(run: GoGRun, store: settings.StoreSpec, version: str) -> Endpoint:
    """The Endpoint that serves a trained checkpoint of the run. version: the checkpoint, `grpo/120`."""
    same = run.spec.model.model_dump(
        include={"dtype", "min_pixels", "max_pixels"}, by_alias=True, exclude_unset=True, exclude_none=True
    )
    return _endpoint(run, "policy", store, run.spec.images.trainer, version=version, **_base(run), **same)


def vllm(run: GoGRun, store: settings.StoreSpec) -> Endpoint:
    """The Endpoint of the vLLM that gog starts for stages with `engine: vllm`, with the options that the run implies."""
    return _endpoint(run, "policy", store, run.spec.images.trainer, **_base(run))


def _base(run: GoGRun) -> dict[str, str]:
    model = run.spec.model
    return {"base": model.base} | ({"baseSecretName": model.secret_name} if model.secret_name else {})


def starts_vllm(run: GoGRun, step: Step) -> bool:
    """Whether a step samples from a vLLM that gog starts."""
    given = run.spec.endpoints.policy
    return _samples_by_vllm(step) and given is not None and given.runtime == "vllm"


def sampler(run: GoGRun, step: Step) -> dict[str, str]:
    """URL of the servers that sample for a step, or the name of their Endpoint; empty for one that samples itself."""
    given = run.spec.endpoints.policy
    if given is None or not _samples_by_vllm(step):
        return {}
    return {"policy": given.url if given.url is not None else policy_name(run)}


def sampler_keys(run: GoGRun, step: Step) -> dict[str, str]:
    """Secret with the API key of the servers that sample for a step, where they require one."""
    given = run.spec.endpoints.policy
    secret = given.secret_name if given is not None and sampler(run, step) else None
    return {"policy": secret} if secret is not None else {}


def compared_keys(step: Step) -> dict[str, str]:
    """Secret with the API key of the model that an evaluation compares, where it requires one."""
    compared = step.settings.stages.evaluate.endpoint if step.stage == "evaluate" else None
    return {"endpoint": compared.secret_name} if compared is not None and compared.secret_name is not None else {}


def _samples_by_vllm(step: Step) -> bool:
    return getattr(getattr(step.settings.stages, step.stage), "engine", "") == "vllm"


def vllm_options(spec: settings.RunSpec) -> dict[str, Any]:
    """Options of vLLM that a manifest implies; its `options` override them."""
    rank = spec.stages.sft.lora.rank + spec.stages.grpo.lora.rank
    stages = (spec.stages.stratify, spec.stages.grpo, spec.stages.evaluate)
    lengths = [each.max_tokens for each in stages if "max_tokens" in each.model_fields_set and each.engine == "vllm"]
    made: dict[str, Any] = {"dtype": spec.model.dtype}
    if rank > DEFAULT_RANK:
        made["max-lora-rank"] = 1 << (rank - 1).bit_length()  # vLLM takes powers of two
    if lengths and len(lengths) == sum(each.engine == "vllm" for each in stages):
        made["max-model-len"] = max(lengths)
    limits = {name: getattr(spec.model, name, None) for name in ("min_pixels", "max_pixels")}
    if any(limits.values()):
        made["mm-processor-kwargs"] = {name: value for name, value in limits.items() if value is not None}
    return made


def tools(run: GoGRun) -> tuple[catalog.Tool, ...]:
    """The tools that a run has: all but the optional ones that its manifest does not name."""
    return tuple(tool for tool in catalog.TOOLS if getattr(run.spec.endpoints, tool.field) is not None)


def tool_names(run: GoGRun) -> dict[str, str]:
    """Name of the Endpoint of each tool, by role."""
    return {tool.name: names.child(run.name, tool.command) for tool in tools(run)}


def backends(run: GoGRun) -> dict[str, str]:
    """Back end of each tool that the run starts, by role, with a hash of its options and its dataset: recorded answers of
    one back end are not replayed for another. An existing server is identified by its URL."""
    made = {}
    for server in tools(run):
        given = getattr(run.spec.endpoints, server.field)
        about = {"options": given.options, "data": _set_fields(run.spec.data) if server.reads_data else {}}
        digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=6).hexdigest()
        if given.url is None:
            made[server.name] = f"{given.backend}#{digest}"
    return made


def keys(run: GoGRun) -> dict[str, str]:
    """Secret with the API key of each tool that requires one, by role; of a fallback, by `<role>Fallback`."""
    given = {tool.name: getattr(run.spec.endpoints, tool.field).secret_name for tool in tools(run)}
    for tool in tools(run):
        fallback = run.spec.tools.fallback(tool.name)
        given[f"{tool.name}Fallback"] = fallback.secret_name if fallback is not None else None
    return {role: secret for role, secret in given.items() if secret is not None}


def policy_name(run: GoGRun) -> str:
    """Name of the Endpoint of the policy."""
    return names.child(run.name, "policy")


def _endpoint(run: GoGRun, role: str, store: settings.StoreSpec, image: str | None, **more: str | int) -> Endpoint:
    server = catalog.SERVER_BY_NAME[role]
    given = getattr(run.spec.endpoints, server.field)
    spec = {"role": role, "store": _set_fields(store), **more, **_placement(run, image), **_set_fields(given)}
    if role != "policy":
        spec["data"] = _set_fields(run.spec.data)
    elif given.runtime == "vllm":
        spec["options"] = vllm_options(run.spec) | given.options
    return Endpoint.model_validate({**_head(run, "Endpoint", names.child(run.name, server.command)), "spec": spec})


def _placement(run: GoGRun, image: str | None) -> dict[str, Any]:
    """Scheduling, service account and image of the run's pods; only what the user set."""
    scheduling = run.spec.scheduling if "scheduling" in run.spec.model_fields_set else None
    return _given(scheduling=scheduling, serviceAccountName=run.spec.service_account_name, image=image)


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None, as a document has them."""
    given = {name: value for name, value in fields.items() if value is not None}
    return {name: _set_fields(value) if isinstance(value, settings.Spec) else value for name, value in given.items()}


def _head(run: GoGRun, kind: str, name: str) -> dict[str, Any]:
    metadata = {
        "name": name,
        "labels": {RUN_LABEL: run.name},
        "ownerReferences": [run.owner_reference().model_dump(by_alias=True)],
    }
    if run.metadata.namespace:
        metadata["namespace"] = run.metadata.namespace
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata}


def _set_fields(model: settings.Spec) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)
