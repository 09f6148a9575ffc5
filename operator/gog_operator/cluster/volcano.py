"""Volcano Jobs of stages: created once per attempt, observed and aborted, never restarted or reused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import yaml

from gog_operator.api import exit_codes
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Stage
from gog_operator.build import meta, sources, volcano
from gog_operator.build import settings as files
from gog_operator.build.platform import Platform
from gog_operator.cluster import documents, mounts, paths, pods
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.creation import create_owned, delete_settings
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import ApiError, items
from gog_operator.plan.actions import Blocked, JobView, Launcher

STARTING = ("", "Pending")
SUCCEEDED = ("Completed",)
FAILED = ("Failed", "Terminated")
CANCELLED = ("Aborted",)
ENDING = ("Aborting", "Terminating", "Completing")
MAX_MESSAGE = 1000
"""Maximum characters of an event's message that are kept: Volcano's names every pod."""
LARGEST = 1_000_000
"""Maximum size of a Job in bytes. etcd stores 1.5 MiB; near that, validation takes longer than our request timeout."""


class VolcanoJobs:
    def __init__(self, api: TranslatedApi, namespace: str, platform: Platform) -> None:
        self.api, self.namespace, self.platform = api, namespace, platform

    def launcher(self, stage: Stage) -> Launcher:
        return Launcher(stage.spec.image or self.platform.trainer_image, "batch.volcano.sh/v1alpha1", "Job")

    def create(self, stage: Stage, config: dict[str, Any]) -> None:
        """Creates the ConfigMap, which the pods wait for, then the Job.

        Args:
            stage: Stage whose current attempt is started.
            config: The recipe's configuration.

        Raises:
            Refused: the cluster rejects the Job.
            Unavailable: the cluster is unavailable, or a job of a deleted stage of the same name still runs.
        """
        self._check_alone(stage)
        job = _within_limit(volcano.job(stage, self.platform))
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        configmap = files.configmap(stage.job_name, stage, {"config.yaml": text})
        create_owned(self.api, paths.CONFIG_MAPS, self.namespace, configmap, stage)
        create_owned(self.api, paths.VOLCANO_JOBS, self.namespace, job, stage)

    def _check_alone(self, stage: Stage) -> None:
        for each in items(self.api, paths.VOLCANO_JOBS.path(self.namespace), f"{meta.OWNER_LABEL}={stage.name}"):
            name = each["metadata"]["name"]
            if name != stage.job_name and phase_of(each) not in (*SUCCEEDED, *FAILED, *CANCELLED):
                raise Unavailable(f"job {name} is still running", after=1.0)

    def view(self, stage: Stage) -> JobView | None:
        """The job of the current attempt; None if it was never created."""
        if not stage.status.attempt:
            return None
        job = self._find(stage)
        if job is None:
            return JobView("lost") if stage.status.observed_attempt == stage.status.attempt else None
        phase = phase_of(job)
        if phase in SUCCEEDED:
            return _with_pods(JobView("succeeded", 0), self._unresolved(stage))
        if phase in FAILED or phase in CANCELLED:
            found = self.pods(stage.job_name)
            return _with_pods(_ended(phase, pods.ending(found, stage.job_name), _message(job)), found)
        if phase in STARTING:
            settings = self.api.find(paths.CONFIG_MAPS.path(self.namespace, stage.job_name))
            found = self.pods(stage.job_name)
            view = JobView(
                "running",
                blocked=_of_source(stage, self._blocked(job, found)),
                started=pods.started(found),
                intact=settings is not None,
            )
            return _with_pods(view, found if pods.all_report(found, stage.spec.workers.replicas) else [])
        return _with_pods(JobView("running"), [] if stage.status.pods else self._unresolved(stage))

    def _unresolved(self, stage: Stage) -> list[dict[str, Any]]:
        """The attempt's pods while its image is not resolved; none afterwards, because they cost a request."""
        image = stage.status.image
        return self.pods(stage.job_name) if image.reference and not image.id else []

    def cancel(self, stage: Stage) -> None:
        """Aborts the Job: Volcano ends the pods and keeps the Job, whose name stays in use. No-op once it has ended."""
        job = self._find(stage)
        if job is None or phase_of(job) in (*SUCCEEDED, *FAILED, *CANCELLED, *ENDING):
            return
        reference = {
            "apiVersion": "batch.volcano.sh/v1alpha1",
            "kind": "Job",
            "name": stage.job_name,
            "uid": job["metadata"]["uid"],
        }
        command = {
            "apiVersion": "bus.volcano.sh/v1alpha1",
            "kind": "Command",
            "metadata": {
                "name": f"{stage.job_name}-abort",
                "namespace": self.namespace,
                "ownerReferences": [{**reference, "controller": True}],
            },
            "action": "AbortJob",
            "target": {**reference, "controller": True},
        }
        try:
            self.api.call("POST", paths.VOLCANO_COMMANDS.path(self.namespace), body=command)
        except ApiError as error:
            if error.status != 409:  # 409: Volcano has not processed an earlier command yet
                raise

    def remove_ended(self, stage: Stage) -> None:
        """Deletes the stage's ended Jobs, which take their pods with them, and their settings."""
        for each in items(self.api, paths.VOLCANO_JOBS.path(self.namespace), f"{meta.OWNER_LABEL}={stage.name}"):
            name, uid = each["metadata"]["name"], each["metadata"]["uid"]
            if documents.owned(each, stage.metadata.uid) and phase_of(each) in (*SUCCEEDED, *FAILED, *CANCELLED):
                delete_settings(self.api, self.namespace, name, stage.metadata.uid)
                self.api.delete(paths.VOLCANO_JOBS.path(self.namespace, name), uid)

    def pods(self, job_name: str) -> list[dict[str, Any]]:
        return list(items(self.api, paths.PODS.path(self.namespace), f"volcano.sh/job-name={job_name}"))

    def _find(self, stage: Stage) -> dict[str, Any] | None:
        """The Job, if it belongs to this stage and not to an earlier stage of the same name."""
        job = self.api.find(paths.VOLCANO_JOBS.path(self.namespace, stage.job_name))
        return job if job is not None and documents.owned(job, stage.metadata.uid) else None

    def _blocked(self, job: dict[str, Any], found: list[dict[str, Any]]) -> Blocked | None:
        """Why a job does not start. found: its pods."""
        name, queue = job["metadata"]["name"], job.get("spec", {}).get("queue", "default")
        if found:
            blocked = pods.blocked(found, name)
            waits = blocked is not None and blocked.reason == Reason.UNSCHEDULABLE
            if blocked and waits:
                return Blocked(Reason.QUEUED, f"queue {queue}: {blocked.message}")
            return blocked or mounts.blocked(self.api, self.namespace, found, name)
        group = self.api.find(paths.POD_GROUPS.path(self.namespace, f"{name}-{job['metadata']['uid']}"))
        status = (group or {}).get("status", {})
        for each in status.get("conditions") or ():
            if each.get("type") == "Unschedulable" and each.get("status") == "True":
                return Blocked(Reason.QUEUED, f"queue {queue}: {each.get('message') or each.get('reason')}")
        if status.get("phase") == "Pending":
            return Blocked(Reason.QUEUED, f"queue {queue} has not admitted the job")
        refusal = self._refusal(job) if group is not None else None  # without a group none was created
        return refusal or Blocked(Reason.QUEUED, f"queue {queue}: the job has no pods yet")

    def _refusal(self, job: dict[str, Any]) -> Blocked | None:
        """Why the cluster refuses to create the job's pods (a quota, a security level). Only events report this."""
        chosen = f"involvedObject.uid={job['metadata']['uid']},type=Warning"
        found = items(self.api, paths.EVENTS.path(self.namespace), fields=chosen)
        messages = [str(each.get("message") or "") for each in found if "Failed" in str(each.get("reason"))]
        return Blocked(Reason.REFUSED, messages[-1][:MAX_MESSAGE]) if messages else None


def _of_source(stage: Stage, blocked: Blocked | None) -> Blocked | None:
    """The same, with field and remedy where it is a source of the stage that its pods wait for."""
    why = sources.explained(blocked.message, sources.of_stage(stage), stage.spec.sources) if blocked else ""
    return Blocked(Reason.SOURCE_UNAVAILABLE, why) if why else blocked


def _with_pods(view: JobView, found: list[dict[str, Any]]) -> JobView:
    """The view with what its pods report."""
    return dataclasses.replace(view, images=pods.images(found), pods=pods.names(found))


def _within_limit(job: dict[str, Any]) -> dict[str, Any]:
    """The Job, if it is small enough for etcd. Raises Refused."""
    size = len(json.dumps(job, separators=(",", ":")))
    if size > LARGEST:
        name, count = job["metadata"]["name"], len(job["spec"]["tasks"])
        what = f"{size:,} bytes are too many for job {name} of {count} pods (at most {LARGEST:,})"
        raise Refused(Reason.REFUSED, f"{what}: fewer workers.replicas, or a shorter scheduling")
    return job


def _ended(phase: str, end: pods.Ending, message: str) -> JobView:
    """The view of a job that did not succeed. A job whose pods were deleted or disrupted is lost, not failed."""
    cause = end.cause or ("" if end.exit_code is not None else message)
    if phase in CANCELLED:
        return JobView("cancelled", end.exit_code, end.lines, cause)
    if end.exit_code == exit_codes.INTERRUPTED:
        return JobView("lost", end.exit_code, end.lines, cause or "a pod received SIGINT or SIGTERM")
    if end.exit_code is None and not cause:
        return JobView("lost", cause="its pods are gone: deleted, or lost with their node")
    return JobView("lost" if end.disrupted else "failed", end.exit_code, end.lines, cause)


def phase_of(job: dict[str, Any]) -> str:
    return str(job.get("status", {}).get("state", {}).get("phase") or "")


def _message(job: dict[str, Any]) -> str:
    state = job.get("status", {}).get("state", {})
    return str(state.get("message") or state.get("reason") or "")
