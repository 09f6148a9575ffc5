"""Simulates the controller manager for Jobs, Deployments and Services, synchronously and deterministically.

The real controllers act at varying times and in varying order, so that no two runs make the same calls. Where they are
disabled (`bare_api_server`), `advance` replaces them: it creates a Job's pod and completes the Job with it, sets a
Deployment's replicas by its scenario, and gives a headless Service addresses.
"""

from __future__ import annotations

from typing import Any

from gog_operator.build import inference
from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError, items
from support import cluster_actors
from support.cluster_actors import Document, Scenario

ADDRESSES = ("10.9.0.1", "10.9.0.2")


def advance(api: Api, namespace: str, scenario: Scenario) -> list[str]:
    """Moves every object to its next state. Returns descriptions of the changes."""
    before = len(scenario.moved)
    for work in (_jobs, _deployments, _services):
        work(api, namespace, scenario)
    return scenario.moved[before:]


def _jobs(api: Api, namespace: str, scenario: Scenario) -> None:
    for job in items(api, paths.JOBS.path(namespace)):
        name, status = job["metadata"]["name"], job.get("status", {})
        if "deletionTimestamp" in job["metadata"] or _ended(status):
            continue
        selector = f"batch.kubernetes.io/job-name={name}"
        pod = next(iter(items(api, paths.PODS.path(namespace), selector)), None)
        if pod is None:
            _create(api, paths.PODS.path(namespace), pod_of(job, f"{name}-x", job["spec"]["template"]))
            scenario.moved.append(f"pod of {name}")
        elif pod["status"].get("phase") in ("Succeeded", "Failed"):
            cluster_actors.write_status(api, paths.JOBS, namespace, name, _job_status(pod))
            scenario.moved.append(f"store job {name} {pod['status']['phase']}")


def pod_of(owner: Document, name: str, template: Document) -> dict[str, Any]:
    metadata = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": template["metadata"].get("labels", {}),
            "ownerReferences": [{**reference, "uid": metadata["uid"], "controller": True}],
        },
        "spec": template["spec"],
    }


def _job_status(pod: Document) -> dict[str, Any]:
    if pod["status"]["phase"] == "Succeeded":
        kinds, reason, counts = ("SuccessCriteriaMet", "Complete"), "CompletionsReached", {"succeeded": 1}
    else:
        kinds, reason, counts = ("FailureTarget", "Failed"), _failure(pod), {"failed": 1}
    stamp = cluster_actors.now()
    common = {"status": "True", "reason": reason, "lastTransitionTime": stamp, "lastProbeTime": stamp}
    ended = {"completionTime": stamp} if "succeeded" in counts else {}
    return {"conditions": [{"type": each, **common} for each in kinds], "startTime": stamp, **ended, **counts}


def _failure(pod: Document) -> str:
    """The reason of a failed Job: its policy ends it at once after exit code 2."""
    codes = {
        (each.get("state") or {}).get("terminated", {}).get("exitCode") for each in pod["status"]["containerStatuses"]
    }
    return "PodFailurePolicy" if 2 in codes else "BackoffLimitExceeded"


def _ended(status: Document) -> bool:
    return any(each["type"] in ("Complete", "Failed") for each in status.get("conditions") or ())


def _deployments(api: Api, namespace: str, scenario: Scenario) -> None:
    for deployment in items(api, paths.DEPLOYMENTS.path(namespace)):
        metadata, wanted = deployment["metadata"], deployment["spec"]["replicas"]
        starts = scenario.ready(deployment["spec"]["selector"]["matchLabels"]["app"]) and _mounted(
            api, namespace, deployment
        )
        if not starts and scenario.runs(deployment["spec"]["selector"]["matchLabels"]["app"]):
            _pod(api, namespace, deployment, scenario)
        ready = wanted if starts else 0
        status = {
            "observedGeneration": metadata["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        current = deployment.get("status", {})
        if "deletionTimestamp" not in metadata and any(current.get(key, 0) != value for key, value in status.items()):
            cluster_actors.write_status(api, paths.DEPLOYMENTS, namespace, metadata["name"], status)
            scenario.moved.append(f"deployment {metadata['name']} {ready}/{wanted}")


def _pod(api: Api, namespace: str, deployment: Document, scenario: Scenario) -> None:
    """A Deployment's pod, if it has none: only tests of pods that run and do not become ready need one."""
    app = deployment["spec"]["selector"]["matchLabels"]["app"]
    if not list(items(api, paths.PODS.path(namespace), f"app={app}")):
        name = f"{deployment['metadata']['name']}-x"
        _create(api, paths.PODS.path(namespace), pod_of(deployment, name, deployment["spec"]["template"]))
        scenario.moved.append(f"pod of {name}")


def _mounted(api: Api, namespace: str, deployment: Document) -> bool:
    """Whether every ConfigMap that its pods mount exists."""
    present = {each["metadata"]["name"] for each in items(api, paths.CONFIG_MAPS.path(namespace))}
    volumes = deployment["spec"]["template"]["spec"].get("volumes") or ()
    return all(each["configMap"]["name"] in present for each in volumes if "configMap" in each)


def _services(api: Api, namespace: str, scenario: Scenario) -> None:
    """A policy's pods have addresses."""
    known = {each["metadata"]["name"] for each in items(api, paths.ENDPOINT_SLICES.path(namespace))}
    for service in items(api, paths.SERVICES.path(namespace)):
        name, uid = service["metadata"]["name"], service["metadata"]["uid"]
        if name in known:
            continue
        owner = {"apiVersion": "v1", "kind": "Service", "name": name, "uid": uid, "controller": True}
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name},
                "ownerReferences": [owner],
            },
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": [each], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": each}}
                for each in ADDRESSES
            ],
            "ports": [{"name": "http", "port": inference.PORT, "protocol": "TCP"}],
        }
        _create(api, paths.ENDPOINT_SLICES.path(namespace), body)
        scenario.moved.append(f"addresses of {name}")


def _create(api: Api, path: str, body: Document) -> None:
    try:
        api.call("POST", path, body=body)
    except ApiError as error:
        if error.status != 409:
            raise
