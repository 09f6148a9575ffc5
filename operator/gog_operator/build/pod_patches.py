"""Patches of pods, applied to a pod template that gog built (a strategic merge of an allow-list, `gog.spec.pod_patches`).

| field | how it is merged |
|---|---|
| env, volumes, resourceClaims | by name; a patch replaces what gog set, unless the name is reserved |
| volumeMounts, topologySpreadConstraints | by mountPath, by topologyKey |
| labels, annotations, nodeSelector, resources, securityContext, affinity | by key |
| envFrom | before gog's own, which therefore take precedence |
| tolerations, imagePullSecrets | appended |
| single values | replaced |

Patches are applied in their order, so a later one takes precedence.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from gog import spec as settings
from gog_operator.build import pods

Document = dict[str, Any]
Patches = Sequence[settings.PodPatch]


def applicable(patches: Patches, *targets: str) -> tuple[settings.PodPatch, ...]:
    """The patches for any of these targets; a patch without targets is for all pods.

    Args:
        patches: The patches of a run, stage or server.
        targets: Group and name of the pods: `stages`, `grpo`.
    """
    return tuple(each for each in patches if not each.targets or set(targets) & set(each.targets))


def apply(template: Document, patches: Patches, *targets: str) -> Document:
    """The pod template with the patches for its targets.

    Args:
        template: `{"metadata": …, "spec": …}` of pods, whose first container is the main one. It is not changed.
        patches: The patches of a run, stage or server.
        targets: Group and name of the pods: `stages`, `grpo`.
    """
    made = copy.deepcopy(template)
    for patch in applicable(patches, *targets):
        given = patch.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
        _patch_metadata(made.setdefault("metadata", {}), given)
        _patch_pod(made["spec"], given)
        for container in (*made["spec"].get("initContainers", ()), *made["spec"]["containers"]):
            _patch_container(container, given)
        _patch_resources(made["spec"]["containers"][0], given)
    return made


def _patch_metadata(metadata: Document, given: Document) -> None:
    for field in ("labels", "annotations"):
        if given.get(field):
            metadata[field] = {**metadata.get(field, {}), **given[field]}


def _patch_pod(pod: Document, given: Document) -> None:
    for field in ("nodeSelector", "securityContext", "affinity"):
        if given.get(field):
            pod[field] = {**pod.get(field, {}), **given[field]}
    for field in ("tolerations", "imagePullSecrets"):
        _append(pod, field, given.get(field, ()))
    for field in ("runtimeClassName", "priorityClassName"):
        if field in given:
            pod[field] = given[field]
    if "terminationGracePeriodSeconds" in given:
        least = pod.get("terminationGracePeriodSeconds", 0)
        pod["terminationGracePeriodSeconds"] = max(least, given["terminationGracePeriodSeconds"])
    _merge(pod, "volumes", given.get("volumes", ()), "name")
    _merge(pod, "topologySpreadConstraints", given.get("topologySpreadConstraints", ()), "topologyKey")
    claims = [{key: claim[key] for key in claim if key != "request"} for claim in given.get("resourceClaims", ())]
    _merge(pod, "resourceClaims", claims, "name")


def _patch_container(container: Document, given: Document) -> None:
    _merge(container, "env", given.get("env", ()), "name")
    _merge(container, "volumeMounts", given.get("volumeMounts", ()), "mountPath")
    if given.get("envFrom"):
        container["envFrom"] = [*given["envFrom"], *container.get("envFrom", ())]


def _patch_resources(container: Document, given: Document) -> None:
    """Devices are for the main container: those beside it only fetch files."""
    if given.get("resources"):
        amounts, resources = given["resources"], container.setdefault("resources", {})
        for field in ("requests", "limits"):
            resources[field] = {**resources.get(field, {}), **amounts}
    claims = [
        {key: claim[key] for key in ("name", "request") if key in claim} for claim in given.get("resourceClaims", ())
    ]
    if claims:
        _merge(container.setdefault("resources", {}), "claims", claims, "name")
    resources = container.get("resources", {})
    if claims or pods.has_gpus(resources):  # the classes of quality of service count cores and memory alone
        resources["requests"] = pods.LEAST | resources.get("requests", {})


def _append(body: Document, field: str, items: Sequence[Any]) -> None:
    """Appends the items of a list that it does not have."""
    known = body.get(field, [])
    added = [each for place, each in enumerate(items) if each not in known and each not in items[:place]]
    if added:
        body[field] = [*known, *added]


def _merge(body: Document, field: str, items: Sequence[Document], key: str) -> None:
    """Merges items into a list by a key: an item replaces the one with the same key, or is appended."""
    if not items:
        return
    merged = {each[key]: each for each in body.get(field, ())}
    body[field] = list((merged | {each[key]: each for each in items}).values())
