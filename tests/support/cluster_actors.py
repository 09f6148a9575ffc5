"""Simulates the rest of a cluster step by step: Volcano, KServe, the kubelet and the program of the store jobs.

Problem: a control plane without a node never starts anything. Decision: `advance(api, namespace)` reads the objects and
writes the status that their real controller would write next; repeated calls complete a healthy run. A `Scenario`
defines failures. The controller manager is real: it creates the pods of Jobs and Deployments, counts them and collects
garbage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from gog_operator.cluster import paths
from gog_operator.cluster.kube import MERGE, Api, ApiError, items

JOB_PHASES = {
    "": "Pending",
    "Pending": "Running",
    "Running": "Completed",
    "Aborting": "Aborted",
    "Terminating": "Failed",
}
IMAGE = "example.org/none"
DIGEST = "5f" * 32
"""Digest of every image, as nodes report it."""

Document = Mapping[str, Any]


@dataclass
class Scenario:
    """Outcomes of jobs, pods and servers."""

    outcome: Callable[[str], str] = lambda name: "Completed"
    """Job's name -> its phase after Running; empty to keep running."""
    step: Callable[[str], dict[str, Any]] = lambda key: {"step": 10, "complete": True}
    """Store key -> the checkpoint that a store job finds there; {} for none."""
    pod: Callable[[str], dict[str, Any]] = lambda name: {"exitCode": 1, "reason": "Error", "message": "boom"}
    """Job's name -> how the pod of a failed job ended."""
    starts: Callable[[str], dict[str, Any]] = lambda name: {}
    """Job's name -> why its pod does not start; {} if it does."""
    ready: Callable[[str], bool] = lambda name: True
    """A server pod's label `app` -> whether the pod becomes ready."""
    runs: Callable[[str], bool] = lambda name: False
    """A server pod's label `app` -> whether the container of a pod that does not become ready runs all the same."""
    store_job: Callable[[str], dict[str, Any]] = lambda name: {}
    """Store job's name -> how its pod ends, or why it is `waiting`; {} if it succeeds."""
    moved: list[str] = field(default_factory=list)
    """Descriptions of the state changes made."""


def advance(api: Api, namespace: str, scenario: Scenario | None = None) -> list[str]:
    """Moves every child in a namespace to its next state. Returns descriptions of the changes."""
    scenario = scenario or Scenario()
    before = len(scenario.moved)
    for work in (_commands, _volcano, _kserve, _server_pods, _store_jobs):
        work(api, namespace, scenario)
    return scenario.moved[before:]


def _commands(api: Api, namespace: str, scenario: Scenario) -> None:
    """Volcano consumes a Command and aborts its job."""
    for each in _all(api, paths.VOLCANO_COMMANDS, namespace):
        name = each["target"]["name"]
        _remove(api, paths.VOLCANO_COMMANDS.path(namespace, each["metadata"]["name"]))
        job = _get(api, paths.VOLCANO_JOBS.path(namespace, name))
        if job is not None and _phase(job) in ("", "Pending", "Running"):
            write_status(api, paths.VOLCANO_JOBS, namespace, name, {"state": {"phase": "Aborting"}})
            scenario.moved.append(f"job {name} Aborting")


def _volcano(api: Api, namespace: str, scenario: Scenario) -> None:
    for job in _all(api, paths.VOLCANO_JOBS, namespace):
        name, phase = job["metadata"]["name"], _phase(job)
        following = scenario.outcome(name) if phase == "Running" else JOB_PHASES.get(phase, "")
        waits = following == "Running" and _get(api, paths.CONFIG_MAPS.path(namespace, name)) is None
        if following == "Running" and (stuck := scenario.starts(name)):
            if _get(api, paths.PODS.path(namespace, f"{name}-trainer-0-0")) is None:
                job_pod(api, namespace, name, "Pending", waiting=stuck)
            continue
        if job["metadata"].get("deletionTimestamp") or not following or waits:
            continue
        if following in ("Failed", "Terminated"):
            _fail_pod(api, namespace, job, scenario)
        write_status(api, paths.VOLCANO_JOBS, namespace, name, {"state": {"phase": following}})
        scenario.moved.append(f"job {name} {following}")


def _fail_pod(api: Api, namespace: str, job: Document, scenario: Scenario) -> None:
    ended = {"finishedAt": now(), "startedAt": now(), **scenario.pod(job["metadata"]["name"])}
    job_pod(api, namespace, job["metadata"]["name"], "Failed", terminated=ended)


def job_pod(api: Api, namespace: str, job_name: str, phase: str, **state: Any) -> None:
    """Creates only the first pod of a Volcano Job, in the given state."""
    job = api.call("GET", paths.VOLCANO_JOBS.path(namespace, job_name))
    task = job["spec"]["tasks"][0]["template"]
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job_name}-trainer-0-0",
            "namespace": namespace,
            "labels": {"volcano.sh/job-name": job_name},
            "ownerReferences": [_owner(job, "batch.volcano.sh/v1alpha1", "Job")],
        },
        "spec": {**task["spec"], "schedulerName": "volcano", "priorityClassName": None},
    }
    try:
        api.call("POST", paths.PODS.path(namespace), body=body)
    except ApiError as error:
        if error.status != 409:
            raise
    container = task["spec"]["containers"][0]
    status = _pod_status(phase, container["name"], image=container["image"], **state)
    write_status(api, paths.PODS, namespace, body["metadata"]["name"], status)


def _owner(body: Document, version: str, kind: str) -> dict[str, Any]:
    metadata = body["metadata"]
    named = {"apiVersion": version, "kind": kind, "name": metadata["name"], "uid": metadata["uid"]}
    return {**named, "controller": True, "blockOwnerDeletion": True}


def _kserve(api: Api, namespace: str, scenario: Scenario) -> None:
    """KServe creates a Deployment, and is Ready once that is available."""
    for service in _all(api, paths.INFERENCE_SERVICES, namespace):
        name = service["metadata"]["name"]
        if _leaves(service) or not service["spec"]["predictor"].get("containers"):
            continue
        deployment = _get(api, paths.DEPLOYMENTS.path(namespace, f"{name}-predictor"))
        if deployment is None or deployment["spec"]["replicas"] != _replicas(service):
            _deploy(api, namespace, service)
            scenario.moved.append(f"deployment {name}")
            continue
        available = deployment.get("status", {}).get("availableReplicas", 0) >= _replicas(service)
        if available != _is_ready(service):
            write_status(api, paths.INFERENCE_SERVICES, namespace, name, _service_status(name, namespace, available))
            scenario.moved.append(f"service {name} {'Ready' if available else 'not ready'}")


def _deploy(api: Api, namespace: str, service: Document) -> None:
    name, predictor = service["metadata"]["name"], service["spec"]["predictor"]
    labels = {"app": f"isvc.{name}-predictor", **service["metadata"].get("labels", {})}
    pod = {key: predictor[key] for key in ("containers", "volumes", "securityContext") if key in predictor}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"{name}-predictor",
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [_owner(service, "serving.kserve.io/v1beta1", "InferenceService")],
        },
        "spec": {
            "replicas": _replicas(service),
            "selector": {"matchLabels": {"app": f"isvc.{name}-predictor"}},
            "template": {"metadata": {"labels": labels}, "spec": {**pod, "automountServiceAccountToken": False}},
        },
    }
    path = paths.DEPLOYMENTS.path(namespace, f"{name}-predictor")
    query = {"fieldManager": "kserve", "force": "true"}
    api.call("PATCH", path, body=body, query=query, content="application/apply-patch+yaml")


def _server_pods(api: Api, namespace: str, scenario: Scenario) -> None:
    """The kubelet starts servers' pods."""
    for pod in items(api, paths.PODS.path(namespace), "app"):
        name, service = pod["metadata"]["name"], pod["metadata"]["labels"]["app"]
        if pod["status"].get("phase") == "Pending" and scenario.ready(service) and not _leaves(pod):
            container = pod["spec"]["containers"][0]["name"]
            status = _pod_status("Running", container, running={"startedAt": now()})
            ready = [{"type": type_, "status": "True"} for type_ in ("Ready", "ContainersReady", "PodScheduled")]
            write_status(api, paths.PODS, namespace, name, {**status, "conditions": ready})
            scenario.moved.append(f"pod {name} Running")
        elif pod["status"].get("phase") == "Pending" and scenario.runs(service) and not _leaves(pod):
            status = _pod_status("Running", pod["spec"]["containers"][0]["name"], running={"startedAt": now()})
            status["containerStatuses"][0]["ready"] = False
            write_status(api, paths.PODS, namespace, name, status)
            scenario.moved.append(f"pod {name} runs, not ready")


def _store_jobs(api: Api, namespace: str, scenario: Scenario) -> None:
    """A store job's pod ends; the controller manager completes its Job."""
    for pod in items(api, paths.PODS.path(namespace), "batch.kubernetes.io/job-name"):
        name = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        waits = _get(api, paths.CONFIG_MAPS.path(namespace, name)) is None
        if pod["status"].get("phase") != "Pending" or _leaves(pod) or waits:
            continue
        end = scenario.store_job(name) or {
            "exitCode": 0,
            "message": json.dumps(_result(api, namespace, name, scenario)),
        }
        container = pod["spec"]["containers"][0]["name"]
        if "waiting" in end:
            status = _pod_status("Pending", container, image=pod["spec"]["containers"][0]["image"], **end)
            write_status(api, paths.PODS, namespace, pod["metadata"]["name"], status)
            continue
        phase = "Failed" if end["exitCode"] else "Succeeded"
        ended = {"finishedAt": now(), "startedAt": now(), **end}
        status = _pod_status(phase, container, terminated=ended)
        write_status(api, paths.PODS, namespace, pod["metadata"]["name"], status)
        scenario.moved.append(f"store job {name}")


def _result(api: Api, namespace: str, name: str, scenario: Scenario) -> dict[str, Any]:
    """A store job's message, as `gog move` writes it."""
    if name.endswith("-data"):
        return {"dataset": "data/1"}
    if "-tools-" in name:
        return {"outcome": "passed", "message": "4 servers answer"}
    if name.endswith("-report"):
        return {"report": "s3://bucket/report"}
    if name.endswith("-fetch"):
        return {"base": {"folder": "model-1", "resolved": "hf://org/model@abc", "bytes": 15_200_000_000}}
    if name.endswith("-erase"):
        return {"outcome": "erased", "message": "12 objects of s3://bucket/world", "erased": 12}
    configmap = api.call("GET", paths.CONFIG_MAPS.path(namespace, name))
    if name.endswith("-publish"):
        agent = json.loads(next(iter(configmap["data"].values())))["agent"]
        return {"version": f"{agent}/1", "sentence": "passed", "settings": {"maxTurns": 6}, "tools": {"cropSide": 28}}
    keys = yaml.safe_load(next(iter(configmap["data"].values())))["keys"]
    return {
        "checkpoints": {key: scenario.step(key) for key in keys if scenario.step(key)},
        "promoted": [],
        "removed": 0,
    }


def _service_status(name: str, namespace: str, ready: bool) -> dict[str, Any]:
    word = "True" if ready else "False"
    conditions = [
        {"type": type_, "status": word, "lastTransitionTime": now()}
        for type_ in ("IngressReady", "PredictorReady", "Ready")
    ]
    return {
        "address": {"url": f"http://{name}-predictor.{namespace}.svc.cluster.local"},
        "conditions": conditions,
        "observedGeneration": 1,
    }


def _pod_status(phase: str, container: str, *, image: str = IMAGE, **state: Any) -> dict[str, Any]:
    status = {
        "name": container,
        "image": image,
        "imageID": f"{image}@sha256:{DIGEST}",
        "ready": "running" in state,
        "restartCount": 0,
        "state": state,
    }
    return {"phase": phase, "containerStatuses": [status]}


def _replicas(service: Document) -> int:
    return int(service["spec"]["predictor"].get("minReplicas", 1))


def _is_ready(service: Document) -> bool:
    conditions = service.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _phase(job: Document) -> str:
    return str(job.get("status", {}).get("state", {}).get("phase") or "")


def _leaves(body: Document) -> bool:
    return "deletionTimestamp" in body["metadata"]


def _all(api: Api, resource: paths.Resource, namespace: str) -> list[dict[str, Any]]:
    return list(items(api, resource.path(namespace)))


def _get(api: Api, path: str) -> dict[str, Any] | None:
    try:
        return api.call("GET", path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def write_status(api: Api, resource: paths.Resource, namespace: str, name: str, status: dict[str, Any]) -> None:
    """Writes the status of an object; does nothing if the object does not exist."""
    try:
        api.call("PATCH", resource.path(namespace, name, "status"), body={"status": status}, content=MERGE)
    except ApiError as error:
        if error.status != 404:
            raise


def _remove(api: Api, path: str) -> None:
    try:
        api.call("DELETE", path)
    except ApiError as error:
        if error.status != 404:
            raise


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
