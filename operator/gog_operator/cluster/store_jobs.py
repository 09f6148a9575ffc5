"""Store jobs: short Jobs that access the store with the run's credentials, because the operator has none.

A store job's result is its pod's termination message. On the first read it is copied to an annotation of the Job, so
that it outlives the pod. A failed store job is kept until its result is needed again; then it is replaced.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gog import spec as settings
from gog_operator.api.meta import Reason
from gog_operator.api.objects import GoGRun, Object
from gog_operator.build import erase_job, fetch_job, meta, store_jobs
from gog_operator.build.platform import Platform
from gog_operator.cluster import documents, mounts, paths, pods
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.creation import create_owned
from gog_operator.cluster.interface import Unavailable
from gog_operator.cluster.kube import items
from gog_operator.plan import attempts
from gog_operator.plan.actions import Blocked

RESULT = "gog.dev/result"
"""Annotation of a Job that holds its result as JSON."""
INVALID_REASON = "PodFailurePolicy"
"""Reason of a Job that the rule of `build/store_jobs.py` for exit code 2 has ended."""
MAX_RESULT = 4096
"""Maximum length of a termination message, in characters."""


@dataclass(frozen=True)
class StoreJobView:
    """A store job as the cluster reports it."""

    state: Literal["absent", "running", "done", "failed"]
    """State of the job; `absent` means that it must be started, whether or not a Job exists."""
    result: Mapping[str, Any] = field(default_factory=dict)
    """Its termination message, once it is done."""
    message: str = ""
    """Why it failed."""
    blocked: Blocked | None = None
    """Why it does not start."""
    is_invalid: bool = False
    """Whether it failed because it refused its input, so that another would fail, too."""
    uid: str = ""
    """The Job's uid; empty if no Job exists."""


class StoreJobs:
    def __init__(self, api: TranslatedApi, namespace: str, platform: Platform) -> None:
        self.api, self.namespace, self.platform = api, namespace, platform

    def view(self, name: str, owner_uid: str = "") -> StoreJobView:
        """The store job of that name. With an owner_uid, a job of another owner counts as absent."""
        job = self.api.find(paths.JOBS.path(self.namespace, name))
        if job is None or documents.terminating(job) or (owner_uid and not documents.owned(job, owner_uid)):
            return StoreJobView("absent")
        return dataclasses.replace(self._state(name, job), uid=job["metadata"]["uid"])

    def _state(self, name: str, job: Mapping[str, Any]) -> StoreJobView:
        kept = job["metadata"].get("annotations", {}).get(RESULT)
        if kept is not None:
            return _finished(_parsed(kept), kept)
        if _holds(job, "Complete"):
            return self._done(name)
        if _holds(job, "Failed") or _holds(job, "FailureTarget"):
            return self._failed(name, job)
        found = self._pods(name)
        if not pods.started(found) and self.api.find(paths.CONFIG_MAPS.path(self.namespace, name)) is None:
            return StoreJobView("absent")  # the ConfigMap is gone, and the pod would wait for it forever
        blocked = (
            pods.blocked(found) or mounts.blocked(self.api, self.namespace, found) if found else self._refusal(job)
        )
        return StoreJobView("running", blocked=blocked)

    def _failed(self, name: str, job: Mapping[str, Any]) -> StoreJobView:
        """Why a job failed: in the words of the pod that refused its input, else of the first that failed."""
        found, invalid = self._pods(name), _is_invalid(job)
        refused = (pods.ending([each]) for each in found if invalid)
        ending = next((each for each in refused if each.exit_code == store_jobs.INVALID), pods.ending(found))
        why = attempts.last_line(ending.lines) or ending.cause or _message(job, "Failed")
        return StoreJobView("failed", message=why, is_invalid=invalid)

    def start(
        self,
        name: str,
        owner: Object,
        command: store_jobs.Command,
        config: dict[str, Any],
        store: settings.StoreSpec | None,
        also: settings.StoreSpec | None = None,
        secret_env: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Starts a store job; keeps an existing one, unless it failed or its result is lost.

        Args:
            name: Name of the Job and its ConfigMap.
            owner: Owner of both.
            command: What it does.
            config: The command's settings.
            store: Store whose credentials the pod gets; None for none.
            also: Second store whose credentials the pod gets.
            secret_env: Environment variables with single keys of Secrets.

        Raises:
            Unavailable: the existing job was deleted; the next pass creates another.
            Refused: the cluster rejects the job.
        """
        if not self._is_due(name, owner):
            return
        configmap, job = store_jobs.job(
            name,
            owner,
            command,
            config,
            store,
            self.platform,
            also=also,
            secret_env=secret_env,
            patches=getattr(owner.spec, "pods", ()),
            scheduling=getattr(owner.spec, "scheduling", None),
            service_account=getattr(owner.spec, "service_account_name", None),
        )
        self._create(owner, configmap, job)

    def fetch(self, name: str, run: GoGRun) -> None:
        """Starts the fetch of a run's sources. Keeps an existing job and raises as `start` does."""
        if self._is_due(name, run):
            self._create(run, *fetch_job.job(name, run, self.platform))

    def erase(self, name: str, run: GoGRun) -> None:
        """Starts the erasure of a run's artifacts. Keeps an existing job and raises as `start` does."""
        if self._is_due(name, run):
            self._create(run, *erase_job.job(name, run, self.platform))

    def page(self, name: str, path: str) -> str:
        """URL of a page of a store job's running pod; empty where none runs."""
        for pod in self._pods(name):
            address = pod.get("status", {}).get("podIP")
            if address and pod["status"].get("phase") == "Running":
                host = f"[{address}]" if ":" in address else address
                return f"http://{host}:{self.platform.progress_port}{path}"
        return ""

    def _is_due(self, name: str, owner: Object) -> bool:
        """Whether a job of that name is to be created. Raises Unavailable after it has deleted a failed one."""
        existing = self.view(name, owner.metadata.uid)
        if existing.state in ("running", "done"):
            return False
        if existing.uid:
            self._remove(name, existing.uid)
            raise Unavailable(f"store job {name} is being replaced", after=1.0)
        return True

    def _create(self, owner: Object, configmap: dict[str, Any], job: dict[str, Any]) -> None:
        create_owned(self.api, paths.CONFIG_MAPS, self.namespace, configmap, owner)
        create_owned(self.api, paths.JOBS, self.namespace, job, owner)

    def remove(self, name: str, owner_uid: str) -> None:
        """Deletes the store job of that name with its ConfigMap, where the owner has one."""
        existing = self.view(name, owner_uid)
        if existing.uid:
            self._remove(name, existing.uid)

    def remove_ended(self, owner: Object) -> None:
        """Deletes the ended store jobs of an object, which take their pods with them, and their settings."""
        for each in items(self.api, paths.JOBS.path(self.namespace), f"{meta.OWNER_LABEL}={owner.name}"):
            if documents.owned(each, owner.metadata.uid) and (_holds(each, "Complete") or _holds(each, "Failed")):
                self._remove(each["metadata"]["name"], each["metadata"]["uid"])

    def _done(self, name: str) -> StoreJobView:
        message = pods.message(self._pods(name))
        if message is None:
            return StoreJobView("absent")  # the pod is gone, and the result with it
        result = _parsed(message[:MAX_RESULT]) if message.strip() else {}
        if result is not None:
            patch = {"metadata": {"annotations": {RESULT: json.dumps(result)}}}
            self.api.merge(paths.JOBS.path(self.namespace, name), patch)
        return _finished(result, message)

    def _refusal(self, job: Mapping[str, Any]) -> Blocked | None:
        """Why the cluster refuses to create the pod (a quota, a missing service account). Only events report this."""
        chosen = f"involvedObject.uid={job['metadata']['uid']},reason=FailedCreate"
        found = items(self.api, paths.EVENTS.path(self.namespace), fields=chosen)
        messages = [str(each.get("message") or "") for each in found]
        return Blocked(Reason.REFUSED, messages[-1]) if messages else None

    def _pods(self, name: str) -> list[dict[str, Any]]:
        return list(items(self.api, paths.PODS.path(self.namespace), f"batch.kubernetes.io/job-name={name}"))

    def _remove(self, name: str, uid: str) -> None:
        """Deletes the Job of that uid and its ConfigMap, which is never updated, because the next Job may need other
        settings.

        Another operator may already have created their successors. The ConfigMap is therefore read before the Job: if
        this Job still exists afterwards, the ConfigMap is not yet a successor's.
        """
        settings_path, job_path = paths.CONFIG_MAPS.path(self.namespace, name), paths.JOBS.path(self.namespace, name)
        configmap, job = self.api.find(settings_path), self.api.find(job_path)
        if job is None or job["metadata"]["uid"] != uid:
            return
        if configmap is not None:
            self.api.delete(settings_path, configmap["metadata"]["uid"])
        self.api.delete(job_path, uid)


def _parsed(text: str) -> dict[str, Any] | None:
    """The result of a store job; None for what is no JSON object. A tenant chooses the image that writes it."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finished(result: Mapping[str, Any] | None, text: str) -> StoreJobView:
    if result is None:
        return StoreJobView("failed", message=f"its message is no JSON object: {text[:100]}")
    return StoreJobView("done", result)


def _holds(job: Mapping[str, Any], type_: str) -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any(each.get("type") == type_ and each.get("status") == "True" for each in conditions)


def _is_invalid(job: Mapping[str, Any]) -> bool:
    """Whether the policy for exit code 2 has ended the job."""
    conditions = job.get("status", {}).get("conditions") or ()
    return any(each.get("reason") == INVALID_REASON for each in conditions if each.get("type") != "Complete")


def _message(job: Mapping[str, Any], type_: str) -> str:
    conditions = job.get("status", {}).get("conditions") or ()
    return next((str(each.get("message") or "") for each in conditions if each.get("type") == type_), "")
