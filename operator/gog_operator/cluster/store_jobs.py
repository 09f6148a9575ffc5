"""Store jobs: short jobs that speak to the store with the run's credentials, because the operator has none.

What a store job found out is its termination message. It is copied to an annotation of the Job when it is first read, so
that it outlives the pod. A store job that failed stays as it is until it is asked for again; then it is made anew.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gog import spec as settings
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Object
from gog_operator.build import store_jobs
from gog_operator.build.platform import Platform
from gog_operator.cluster import documents, paths, pods
from gog_operator.cluster.api_errors import Explained
from gog_operator.cluster.creation import create_owned
from gog_operator.cluster.interface import Unavailable
from gog_operator.cluster.kube import items
from gog_operator.plan import attempts
from gog_operator.plan.actions import Blocked

RESULT = "gog.dev/result"
LONGEST = 4096


@dataclass(frozen=True)
class StoreJobView:
    """absent: to be started, whether or not there is a Job. result: what it found out, once it is done. message: why it
    failed. trouble: why it does not get on."""

    state: Literal["absent", "running", "done", "failed"]
    result: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    blocked: Blocked | None = None
    uid: str = ""


class StoreJobs:
    def __init__(self, api: Explained, namespace: str, platform: Platform) -> None:
        self.api, self.namespace, self.platform = api, namespace, platform

    def view(self, name: str, owner_uid: str = "") -> StoreJobView:
        """owner_uid: another's store job is as good as none."""
        job = self.api.find(paths.JOBS.path(self.namespace, name))
        if job is None or documents.ending(job) or (owner_uid and not documents.owned(job, owner_uid)):
            return StoreJobView("absent")
        return dataclasses.replace(self._seen(name, job), uid=job["metadata"]["uid"])

    def _seen(self, name: str, job: Mapping[str, Any]) -> StoreJobView:
        kept = job["metadata"].get("annotations", {}).get(RESULT)
        if kept is not None:
            return StoreJobView("done", json.loads(kept))
        if _holds(job, "Complete"):
            return self._done(name)
        if _holds(job, "Failed") or _holds(job, "FailureTarget"):
            ending = pods.ending(self._pods(name))
            told = attempts.last_line(ending.lines) or ending.cause or _told(job, "Failed")
            return StoreJobView("failed", message=told)
        found = self._pods(name)
        if not pods.started(found) and self.api.find(paths.CONFIG_MAPS.path(self.namespace, name)) is None:
            return StoreJobView("absent")  # its settings are gone, and its pod would wait for them
        return StoreJobView("running", blocked=pods.blocked(found) if found else self._podless(job))

    def done(self, name: str) -> bool:
        """Whether it ended well, whatever it found out."""
        job = self.api.find(paths.JOBS.path(self.namespace, name))
        return job is not None and _holds(job, "Complete")

    def start(
        self,
        name: str,
        owner: Object,
        command: Literal["check", "data", "report"],
        config: dict[str, Any],
        store: settings.StoreSpec,
        also: settings.StoreSpec | None = None,
    ) -> None:
        """Starts a store job; the one that is there counts, unless it failed or its result is lost: that one is removed, and
        Unavailable raised until it is gone. Raises Refused."""
        there = self.view(name, owner.metadata.uid)
        if there.state in ("running", "done"):
            return
        if there.uid:
            self._remove(name, there.uid)
            raise Unavailable(f"store job {name} is made anew", after=1.0)
        configmap, job = store_jobs.job(
            name,
            owner,
            command,
            config,
            store,
            self.platform,
            also=also,
            scheduling=getattr(owner.spec, "scheduling", None),
            service_account=getattr(owner.spec, "service_account_name", None),
        )
        create_owned(self.api, paths.CONFIG_MAPS, self.namespace, configmap, owner)
        create_owned(self.api, paths.JOBS, self.namespace, job, owner)

    def _done(self, name: str) -> StoreJobView:
        told = pods.message(self._pods(name))
        if told is None:
            return StoreJobView("absent")  # its pod is gone, and what it found out with it
        try:
            result = json.loads(told[:LONGEST]) if told.strip() else {}
        except ValueError:
            return StoreJobView("failed", message=f"said no JSON: {told[:100]}")
        patch = {"metadata": {"annotations": {RESULT: json.dumps(result)}}}
        self.api.merge(paths.JOBS.path(self.namespace, name), patch)
        return StoreJobView("done", result)

    def _podless(self, job: Mapping[str, Any]) -> Blocked | None:
        """Why the cluster lets no pod be made (a quota, no such service account): a Job says so in events only."""
        chosen = f"involvedObject.uid={job['metadata']['uid']},reason=FailedCreate"
        told = [
            str(each.get("message") or "") for each in items(self.api, paths.EVENTS.path(self.namespace), fields=chosen)
        ]
        return Blocked(Reason.REFUSED, told[-1]) if told else None

    def _pods(self, name: str) -> list[dict[str, Any]]:
        return list(items(self.api, paths.PODS.path(self.namespace), f"batch.kubernetes.io/job-name={name}"))

    def _remove(self, name: str, uid: str) -> None:
        """The Job of that uid and its settings: those of the next may be others, and a ConfigMap of ours never changes.

        Whoever else removes the two may have made the next ones already. So the settings are looked up before the Job is
        seen to be there still: those of a later one are made after it has gone."""
        settings_path, job_path = paths.CONFIG_MAPS.path(self.namespace, name), paths.JOBS.path(self.namespace, name)
        configmap, job = self.api.find(settings_path), self.api.find(job_path)
        if job is None or job["metadata"]["uid"] != uid:
            return
        if configmap is not None:
            self.api.drop(settings_path, configmap["metadata"]["uid"])
        self.api.drop(job_path, uid)


def _holds(job: Mapping[str, Any], type_: str) -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any(each.get("type") == type_ and each.get("status") == "True" for each in conditions)


def _told(job: Mapping[str, Any], type_: str) -> str:
    conditions = job.get("status", {}).get("conditions") or ()
    return next((str(each.get("message") or "") for each in conditions if each.get("type") == type_), "")
