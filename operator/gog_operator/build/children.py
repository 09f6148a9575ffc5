"""The objects that a run owns: stages and ToolServers, as they are created.

A child receives only what the user set; a stage's defaults are in its model family's preset, which the recipe reads. The
inputs of a stage are pinned to a checkpoint (`sft/180`), so that a later attempt starts from the same one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from gog import catalog, vllm_options
from gog import spec as settings
from gog_operator.api import names, patches, presets
from gog_operator.api.meta import API_VERSION, RUN_LABEL, WORKERS
from gog_operator.api.objects import STAGE_KINDS, GoGRun, Stage, ToolServer
from gog_operator.api.sequence import Step
from gog_operator.build import pod_patches

RECORDED = "http://recorded.invalid"
"""Address of a tool whose answers are all recorded: a name that never resolves, so nothing can be called by mistake."""


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
        "model": step.settings.model.as_given(),
        "data": step.settings.data.as_given(),
        "store": store.as_given(),
        "inputs": inputs,
        "endpoints": (addresses(run) | sampler(run, step)) if settings.NEEDS_TOOLS[step.stage] else {},
        "backends": backends(run) if settings.NEEDS_TOOLS[step.stage] else {},
        "endpointSecrets": (keys(run) | sampler_keys(run, step) | compared_keys(step))
        if settings.NEEDS_TOOLS[step.stage]
        else {},
        "tools": step.settings.tools.as_given(),
        "suspend": run.spec.suspend,
        "backoffLimit": run.spec.backoff_limit,
        "activeDeadlineSeconds": run.spec.active_deadline_seconds,
        "queueDeadlineSeconds": run.spec.queue_deadline_seconds,
        **_placement(run, run.spec.images.trainer, "stages", step.stage, "storeJobs"),
        **_given(
            jobTtlSeconds=run.spec.job_ttl_seconds,
            retention=run.spec.retention,
            promoteTo=run.spec.promote_to,
            traces=run.spec.traces,
        ),
        **_given(judgeModel=(run.spec.tools.cache.is_replay and judge(run).model) or None),
        **_fetched(run),
    }
    spec |= getattr(step.settings.stages, step.stage).as_given()
    if step.stage == "evaluate" and "policies" not in spec and "grpo" in run.spec.stages.skip:
        spec["policies"] = [each for each in settings.EvaluateSettings().policies if each != "grpo"]
    head = _head(run, cls.__name__, step.name)
    head["metadata"]["annotations"] = {WORKERS: json.dumps(_workers(step))}
    return cls.model_validate({**head, "spec": spec})


def _workers(step: Step) -> dict[str, Any]:
    """What the run says about the workers of a stage."""
    given: settings.WorkersSpec = getattr(step.settings.stages, step.stage).workers
    return given.as_given()


def resizing(stage: Stage, step: Step, run: GoGRun) -> tuple[dict[str, Any], dict[str, str]]:
    """The merge patch of a stage's workers, and of its annotations, after the run's have changed; empty where they have not.

    What a user has changed of the stage itself stays, unless the run changes it, too. Where the run names a preset, nothing
    is removed, as in `scheduling_patch`.
    """
    known, wanted = stage.metadata.annotations.get(WORKERS), _workers(step)
    if known is None or _recorded(known) == wanted:
        return {}, {}
    patch = patches.merge_patch(_recorded(known), wanted)
    if run.spec.runtime is not None:
        patch = {name: value for name, value in patch.items() if value is not None}
    return patch, {WORKERS: json.dumps(wanted)}


def _recorded(annotation: str) -> dict[str, Any]:
    """What the annotation holds, which a user may have changed; empty for what is no object."""
    try:
        found = json.loads(annotation)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def scheduling_patch(stage: Stage, run: GoGRun) -> dict[str, Any]:
    """The merge patch that gives a stage the scheduling of its run; empty where it has that.

    Where the run names a preset, nothing is removed: what the run does not set came from there.
    """
    have, wanted = stage.spec.scheduling.as_given(), run.spec.scheduling.as_given()
    if run.spec.runtime is not None:
        wanted = presets.with_defaults(wanted, have)
    return patches.merge_patch(have, wanted)


def tool_servers(run: GoGRun, store: settings.StoreSpec) -> tuple[ToolServer, ...]:
    """One ToolServer for each tool, and none where all answers are recorded, so that a replay needs no vendor's key and no GPU
    of a detector. The policy's ToolServer is created when there is a policy to serve."""
    return tuple(_tool_server(run, role, store, run.spec.images.tools) for role in tool_names(run))


def policy(run: GoGRun, store: settings.StoreSpec, version: str) -> ToolServer:
    """The ToolServer that serves a trained checkpoint of the run. version: the checkpoint, `grpo/120`."""
    same = run.spec.model.model_dump(
        include={"dtype", "min_pixels", "max_pixels"}, by_alias=True, exclude_unset=True, exclude_none=True
    )
    return _tool_server(run, "policy", store, run.spec.images.trainer, version=version, **_base(run), **same)


def vllm(run: GoGRun, store: settings.StoreSpec) -> ToolServer:
    """The ToolServer of the vLLM that gog starts for stages with `engine: vllm`, with the options that the run implies."""
    return _tool_server(run, "policy", store, run.spec.images.trainer, **_base(run))


def _base(run: GoGRun) -> dict[str, str]:
    model = run.spec.model
    return {"base": model.base} | ({"baseSecretName": model.secret_name} if model.secret_name else {})


def starts_vllm(run: GoGRun, step: Step) -> bool:
    """Whether a step samples from a vLLM that gog starts."""
    given = run.spec.endpoints.policy
    return _samples_by_vllm(step) and given is not None and given.runtime == "vllm"


def sampler(run: GoGRun, step: Step) -> dict[str, str]:
    """URL of the servers that sample for a step, or the name of their ToolServer; empty for one that samples itself."""
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
    """Secret with the API key of the model that an evaluation compares or that teaches, where it requires one."""
    stages = step.settings.stages
    compared = {"curate": stages.curate.endpoint, "evaluate": stages.evaluate.endpoint}.get(step.stage)
    return {"endpoint": compared.secret_name} if compared is not None and compared.secret_name is not None else {}


def _samples_by_vllm(step: Step) -> bool:
    return getattr(getattr(step.settings.stages, step.stage), "engine", "") == "vllm"


def implied_options(spec: settings.RunSpec) -> dict[str, Any]:
    """Options of vLLM that a manifest implies; its `options` override them."""
    rank = spec.stages.sft.lora.rank + spec.stages.grpo.lora.rank
    stages = (spec.stages.stratify, spec.stages.grpo, spec.stages.evaluate)
    lengths = [each.max_tokens for each in stages if "max_tokens" in each.model_fields_set and each.engine == "vllm"]
    made: dict[str, Any] = {"dtype": spec.model.dtype}
    if rank > vllm_options.MAX_RANK:
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
    """Name of the ToolServer of each tool, by role; empty where none is needed."""
    if run.spec.tools.cache.is_replay:
        return {}
    return {tool.name: names.child(run.name, tool.command) for tool in tools(run)}


def addresses(run: GoGRun) -> dict[str, str]:
    """Name of the ToolServer of each tool, by role, or the URL under which its answers are recorded."""
    if not run.spec.tools.cache.is_replay:
        return tool_names(run)
    return {tool.name: getattr(run.spec.endpoints, tool.field).url or RECORDED for tool in tools(run)}


def backends(run: GoGRun) -> dict[str, str]:
    """Back end of each tool that the run starts, by role, with a hash of its options and its dataset: recorded answers of
    one back end are not replayed for another. An existing server is identified by its URL."""
    made = {}
    for server in tools(run):
        given = getattr(run.spec.endpoints, server.field)
        data = {name: each for name, each in run.spec.data.as_given().items() if name != "secretName"}
        about = {"options": given.options, "data": data if server.reads_data else {}}
        digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=6).hexdigest()
        if given.url is None:
            made[server.name] = f"{given.backend}#{digest}"
    return made


def keys(run: GoGRun) -> dict[str, str]:
    """Secret with the API key of each tool that requires one, by role; of a fallback, by `<role>Fallback`. A replay has none."""
    if run.spec.tools.cache.is_replay:
        return {}
    given = {tool.name: getattr(run.spec.endpoints, tool.field).secret_name for tool in tools(run)}
    for tool in tools(run):
        fallback = run.spec.tools.fallback(tool.name)
        given[f"{tool.name}Fallback"] = fallback.secret_name if fallback is not None else None
    return {role: secret for role, secret in given.items() if secret is not None}


def judge(run: GoGRun) -> settings.JudgeEndpointSpec:
    """The judge's server, as the manifest has it."""
    given: settings.JudgeEndpointSpec = getattr(run.spec.endpoints, "judge")  # noqa: B009  made from the catalogue
    return given


def policy_name(run: GoGRun) -> str:
    """Name of the ToolServer of the policy."""
    return names.child(run.name, "policy")


def _tool_server(run: GoGRun, role: str, store: settings.StoreSpec, image: str | None, **more: str | int) -> ToolServer:
    server = catalog.SERVER_BY_NAME[role]
    given = getattr(run.spec.endpoints, server.field)
    if getattr(given, "runtime", "gog") == "vllm":
        image = None  # those of the manifest have gog
    spec = {
        "role": role,
        "store": store.as_given(),
        **more,
        **_placement(run, image, "servers", role),
        **given.as_given(),
        **_fetched(run),
    }
    if role != "policy":
        spec["data"] = run.spec.data.as_given()
    elif given.runtime == "vllm":
        spec["options"] = implied_options(run.spec) | given.options
    return ToolServer.model_validate({**_head(run, "ToolServer", names.child(run.name, server.command)), "spec": spec})


def _placement(run: GoGRun, image: str | None, *targets: str) -> dict[str, Any]:
    """Scheduling, service account, image and patches of a child's pods; only what the user set.

    Args:
        run: The run.
        image: The image of the child; None for the installation's.
        targets: Groups and names of the pods that the child creates.
    """
    patches = [each.as_given() for each in pod_patches.applicable(run.spec.pods, *targets)]
    scheduling = run.spec.scheduling if "scheduling" in run.spec.model_fields_set else None
    return _given(
        scheduling=scheduling, serviceAccountName=run.spec.service_account_name, image=image, pods=patches or None
    )


def _fetched(run: GoGRun) -> dict[str, Any]:
    """The volumes of sources that were fetched for the run."""
    return {"sources": dict(run.status.sources)} if run.status.sources else {}


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None, as a document has them."""
    given = {name: value for name, value in fields.items() if value is not None}
    return {name: value.as_given() if isinstance(value, settings.Spec) else value for name, value in given.items()}


def _head(run: GoGRun, kind: str, name: str) -> dict[str, Any]:
    metadata = {
        "name": name,
        "labels": {RUN_LABEL: run.name},
        "ownerReferences": [run.owner_reference().model_dump(by_alias=True)],
    }
    if run.metadata.namespace:
        metadata["namespace"] = run.metadata.namespace
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata}
