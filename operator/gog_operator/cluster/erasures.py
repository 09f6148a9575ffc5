"""The erasure of a deleted run's artifacts, as a namespace of a cluster reports it.

Before the job is started, no pod of the run may write any more, and no other object of the namespace may name the store: one
that has not begun yet is not registered in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gog_operator.api import names
from gog_operator.api.meta import KEEP, RUN_LABEL
from gog_operator.api.objects import GoGRun, Progress
from gog_operator.cluster import documents, paths
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.interface import Unavailable
from gog_operator.cluster.kube import ApiError, items
from gog_operator.cluster.store_jobs import StoreJobs
from gog_operator.plan.erasure import ErasureView

OVER = ("Succeeded", "Failed")
"""Phases of pods that no longer run."""
REMEDY = f"delete those first, or set artifactPolicy: Retain or the annotation {KEEP}=yes to keep the artifacts"


def job_name(run: GoGRun) -> str:
    """Name of the job."""
    return names.store_job(run.name, "erase")


def view(
    run: GoGRun, api: TranslatedApi, namespace: str, jobs: StoreJobs, poll: Callable[[str], Progress | None]
) -> ErasureView:
    """The erasure as the cluster reports it.

    Args:
        run: The run, which is being deleted.
        api: Client of the API server.
        namespace: The run's namespace.
        jobs: The store jobs of the namespace.
        poll: Returns the newest progress of the job's pod, by the URL of its page, empty while none runs.

    Raises:
        Refused: the namespace is being deleted.
    """
    if run.spec.store is None:
        return ErasureView("done", "the run has no store")
    found = jobs.view(job_name(run), run.metadata.uid)
    if found.state != "running":
        _check_namespace(api, namespace)
    match found.state:
        case "absent":
            return _obstacle(run, api, namespace) or ErasureView("absent")
        case "failed":
            return ErasureView("failed", found.message)
        case "running":
            progress = poll(jobs.page(job_name(run), "/progress"))
            count = f": {progress.step:,} objects so far" if progress is not None and progress.step else ""
            return ErasureView("running", f"erasing {run.spec.store.uri}{count}", found.blocked)
    message = str(found.result.get("message") or "")
    if found.result.get("outcome") == "shared":
        return ErasureView("shared", f"{message}: {REMEDY}")
    return ErasureView("done", message)


def start(run: GoGRun, api: TranslatedApi, namespace: str, jobs: StoreJobs) -> None:
    """Starts the job, unless something is in its way. Raises Unavailable after it has deleted one that was refused."""
    known = jobs.view(job_name(run), run.metadata.uid)
    if known.state == "done" and known.result.get("outcome") == "shared":
        jobs.remove(job_name(run), run.metadata.uid)
        raise Unavailable(f"store job {job_name(run)} is being replaced", after=1.0)
    if _obstacle(run, api, namespace) is None:
        jobs.erase(job_name(run), run)


def _check_namespace(api: TranslatedApi, namespace: str) -> None:
    """Tries to create an object without creating one, because the operator may not read namespaces.

    Raises:
        Refused: the namespace is being deleted.
        Unavailable: the API server answers with a conflict, or not at all.
    """
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gog-probe-"}}
    try:
        api.call("POST", paths.CONFIG_MAPS.path(namespace), body=probe, query={"dryRun": "All"})
    except ApiError as error:  # a conflict, where nothing was to be created
        raise Unavailable(f"the namespace cannot be checked: {error}") from None


def _obstacle(run: GoGRun, api: TranslatedApi, namespace: str) -> ErasureView | None:
    """What must end before anything is erased; None for nothing."""
    pods = items(api, paths.PODS.path(namespace), f"{RUN_LABEL}={run.name}")
    running = sorted(each["metadata"]["name"] for each in pods if each.get("status", {}).get("phase") not in OVER)
    if running:
        return ErasureView(
            "waiting", f"waiting for the end of pod {running[0]}" + (" and others" if running[1:] else "")
        )
    uri = _normal(run.spec.store.uri) if run.spec.store is not None else ""
    for resource in paths.OURS.values():
        for each in items(api, resource.path(namespace)):
            mine = each["metadata"].get("uid") == run.metadata.uid or documents.owned(each, run.metadata.uid)
            if not mine and uri in _addresses(each.get("spec")):
                what = f"{each.get('kind') or resource.plural} {each['metadata']['name']} uses {uri}"
                return ErasureView("shared", f"{what}: {REMEDY}")
    return None


def _addresses(spec: Any) -> Iterator[str]:
    """Every address in a bucket that a spec names."""
    if isinstance(spec, str):
        if spec.startswith("s3://"):
            yield _normal(spec)
    elif isinstance(spec, Mapping):
        for each in spec.values():
            yield from _addresses(each)
    elif isinstance(spec, list):
        for each in spec:
            yield from _addresses(each)


def _normal(uri: str) -> str:
    return uri.rstrip("/")
