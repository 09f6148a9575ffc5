"""A namespace of a Kubernetes cluster: objects are custom resources, Volcano runs jobs, KServe runs servers.

The API server holds all state, so an operator may die at any point, and two may run at once without harm. API errors become
Refused and Unavailable (`api_errors`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic.alias_generators import to_camel

from gog import spec as settings
from gog_operator.api import names, sequence
from gog_operator.api import presets as api_presets
from gog_operator.api.meta import Reason
from gog_operator.api.objects import STAGE_KINDS, GoGRun, Object, Progress, Stage, Status, ToolServer, document
from gog_operator.api.presets import GoGRuntime
from gog_operator.build import admin, agents, children, config, inference, vllm
from gog_operator.build.platform import Platform
from gog_operator.cluster import (
    documents,
    erasures,
    events,
    fetches,
    kserve,
    paths,
    polls,
    presets,
    store_checks,
    store_jobs,
    tool_checks,
    trainer_client,
    volcano,
)
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.documents import Unreadable
from gog_operator.cluster.interface import AlreadyExists, Conflict, Refused, Thing
from gog_operator.cluster.kube import Api, ApiError, items
from gog_operator.cluster.policy_polls import PolicyPolls
from gog_operator.cluster.remote_agents import AgentsOfCluster
from gog_operator.plan.actions import (
    DataView,
    Event,
    JobView,
    Launcher,
    ReportView,
    ServerView,
    SourcesView,
    StoreView,
    ToolCheckView,
)
from gog_operator.plan.erasure import ErasureView
from gog_operator.workqueue import Key

WORKDIR = "/work"
START_SECONDS = 15.0
"""Seconds between passes over a server none of whose pods runs; no event reports that its first pod runs."""


class RemoteCluster(AgentsOfCluster):
    """The Cluster of one namespace.

    Args:
        api: Client of the API server.
        namespace: Namespace of all its objects.
        platform: The installation's images and ports.
        request: Sends an HTTP request to a trainer.
        looks: Looks at trainers and pods; by default it sends a request to the trainer at once.
        policies: Asks the pods of served policies; None for a cluster that has none.
    """

    is_persistent = True

    def __init__(
        self,
        api: Api,
        namespace: str,
        platform: Platform,
        request: trainer_client.Request = trainer_client.request,
        looks: polls.Polls | None = None,
        policies: PolicyPolls | None = None,
    ) -> None:
        self.api, self.namespace, self.platform = TranslatedApi(api), namespace, platform
        self.polls, self.policies = looks or polls.DirectPolls(request), policies
        self.jobs = volcano.VolcanoJobs(self.api, namespace, platform)
        self.servers = kserve.KServeServers(self.api, namespace, platform)
        self.store_jobs = store_jobs.StoreJobs(self.api, namespace, platform)

    @property
    def wakes(self) -> bool:
        return self.polls.wakes

    @property
    def job_ttl_seconds(self) -> int | None:
        return self.platform.job_ttl_seconds

    # -- objects

    def get(self, kind: type[Thing], name: str) -> Thing | None:
        """Raises Unreadable, and Refused for another object than the requested one."""
        body = self.api.find(self._path(kind.__name__, name))
        if body is None:
            return None
        found = body.get("metadata", {})
        if (found.get("namespace"), found.get("name")) != (self.namespace, name):
            raise Refused(
                Reason.REFUSED,
                f"{kind.__name__} {name}: the API server returned {found.get('namespace')}/{found.get('name')}",
            )
        return documents.parse(kind, body)

    def list(self, kind: type[Thing]) -> tuple[Thing, ...]:
        """Every object of a kind, except those that cannot be parsed."""
        found = []
        for body in items(self.api, self._path(kind.__name__)):
            with contextlib.suppress(Unreadable):
                found.append(documents.parse(kind, body))
        return tuple(found)

    def children(self, owner: Object) -> tuple[Object, ...]:
        """Reads the children by name, because a consistent list costs the server more than all these requests."""
        if isinstance(owner, ToolServer) and owner.spec.role == "agent":
            own = (self._readable(ToolServer, name) for name in agents.server_names(owner).values())
            return tuple(each for each in own if each is not None and each.owned_by(owner))
        if not isinstance(owner, GoGRun):
            return ()
        steps = sequence.steps(owner)
        stages = [self._readable(STAGE_KINDS[step.stage], step.name) for step in steps]
        tools = children.tool_names(owner).values() if sequence.tools_needed(steps) else ()
        servers = [self._readable(ToolServer, name) for name in (*tools, children.policy_name(owner))]
        return tuple(each for each in (*stages, *servers) if each is not None and each.owned_by(owner))

    def _readable(self, kind: type[Thing], name: str) -> Thing | None:
        """Raises Refused for an object that cannot be parsed, because its owner would decide wrongly without it."""
        try:
            return self.get(kind, name)
        except Unreadable as error:
            raise Refused(Reason.INVALID_INPUT, error.sentence) from None

    def preset(self, name: str) -> GoGRuntime:
        return presets.get(self.api, name)

    def create(self, thing: Object) -> None:
        try:
            self.api.call("POST", self._path(thing.kind), body=documents.created(thing, self.namespace))
        except ApiError as error:
            if error.status != 409:
                raise
            raise AlreadyExists(thing.name) from None

    def patch_status(self, thing: Object, status: Status) -> None:
        patch = documents.status_patch(thing.status, status)
        if not patch:
            return
        body = {"metadata": {"resourceVersion": thing.metadata.resource_version}, "status": patch}
        try:
            written = self.api.merge(self._path(thing.kind, thing.name, "status"), body)
        except ApiError:
            written = False
        if not written:
            raise Conflict(thing.name)

    def patch(self, kind: str, name: str, *, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> None:
        body: dict[str, Any] = {}
        if spec:
            body["spec"] = {to_camel(key): value for key, value in spec.items()}
        if annotations:
            body["metadata"] = {"annotations": dict(annotations)}
        self.api.merge(self._path(kind, name), body)

    def delete(self, kind: str, name: str, uid: str = "") -> None:
        """Deletes an object, its children first."""
        self.api.delete(self._path(kind, name), uid, foreground=kind != "ToolServer")

    def set_finalizers(self, thing: Object, finalizers: tuple[str, ...]) -> None:
        head = {"resourceVersion": thing.metadata.resource_version, "finalizers": list(finalizers)}
        try:
            written = self.api.merge(self._path(thing.kind, thing.name), {"metadata": head})
        except ApiError:
            written = False
        if not written:
            raise Conflict(thing.name)

    def record(self, thing: Object, event: Event, now: datetime) -> None:
        events.record(self.api, self.namespace, thing, event, now)

    # -- jobs

    def launcher(self, stage: Stage) -> Launcher:
        return self.jobs.launcher(stage)

    def create_job(self, stage: Stage, endpoints: dict[str, str], judge_model: str) -> None:
        data = self.data(stage).spec or stage.spec.data
        sampler = stage.spec.endpoints.get("policy", "")
        if sampler and "://" not in sampler:  # each pod of it needs every version, so each is called at its own address
            endpoints = endpoints | {"policy": inference.pods_url(sampler, self.namespace)}
        body = config.render(stage, data=data, endpoints=endpoints, judge_model=judge_model, workdir=WORKDIR)
        if sampler and "://" not in sampler:
            asked = body.setdefault("tools", {}).setdefault("policy_server", {})
            asked.setdefault("receiver_port", vllm.RECEIVER_PORT)
        self.jobs.create(stage, body)

    def job(self, stage: Stage) -> JobView | None:
        return self.jobs.view(stage)

    def cancel_job(self, stage: Stage) -> None:
        self.jobs.cancel(stage)

    def remove_jobs(self, owner: Stage | GoGRun) -> None:
        self.store_jobs.remove_ended(owner)
        if isinstance(owner, Stage):
            self.jobs.remove_ended(owner)

    def progress(self, stage: Stage, job: JobView | None) -> Progress | None:
        """The progress that the first pod reports, only while the job runs: a missing pod costs the whole timeout."""
        key = self._key(stage)
        if job is None or job.state != "running":
            self.polls.stop(key)
            return None
        if not job.started:
            self.polls.wake(key, polls.POLL_SECONDS)
            return None
        name = stage.job_name
        address = f"http://{name}-trainer-0-0.{name}.{self.namespace}.svc:{self.platform.progress_port}/progress"
        return self.polls.progress(key, address)

    # -- servers

    def start_server(self, tool_server: ToolServer, port: int, now: datetime) -> None:
        self.servers.start(tool_server, self.data(tool_server).spec, now)

    def server(self, tool_server: ToolServer) -> ServerView | None:
        view = self.servers.view(tool_server, self.data(tool_server).spec)
        if view is not None and view.state == "starting" and view.started is None and tool_server.spec.replicas:
            self.polls.wake(self._key(tool_server), START_SECONDS)
        if view is None or view.state != "ready" or tool_server.spec.role != "policy" or not tool_server.spec.version:
            return view
        return dataclasses.replace(view, version=self._served(tool_server))

    def _served(self, tool_server: ToolServer) -> str:
        """The version, if every pod serves it. Before the first check, what an earlier operator found holds."""
        pods, wanted = self.servers.addresses(tool_server), tool_server.spec.version
        if not pods or self.policies is None:
            return ""
        served = self.policies.serves(self._key(tool_server), pods, wanted)
        return wanted if served or (served is None and tool_server.status.version == wanted) else ""

    def stop_server(self, name: str) -> None:
        self.servers.stop(name)

    def load_version(self, tool_server: ToolServer, version: str) -> None:
        self.servers.prepare(tool_server)  # so that a pod which starts now loads the new version
        pods = self.servers.addresses(tool_server)
        if pods and self.policies is not None:
            token = admin.token(tool_server, self.platform)
            self.policies.load(self._key(tool_server), pods, version, token)

    # -- data, store, report

    def prepare_data(self, owner: Object) -> None:
        """Generates the dataset of a run, which the run's stages and ToolServers share."""
        if _run_of(owner) != (owner.name, owner.metadata.uid):
            return
        given: settings.DataSpec = owner.spec.data  # type: ignore[attr-defined]
        store = self._store(owner)
        body = {"store": store.as_given(), "world": (given.world or settings.WorldSpec()).as_given()}
        self.store_jobs.start(names.store_job(owner.name, "data"), self._placed(owner), "data", body, store)

    def data(self, owner: Object) -> DataView:
        given = getattr(owner.spec, "data", None)
        if given is None or given.world is None:
            return DataView("ready", given)
        run, uid = _run_of(owner)
        view = self.store_jobs.view(names.store_job(run, "data"), uid)
        match view.state:
            case "done":
                return DataView("ready", settings.DataSpec(uri=self._store(owner).uri))
            case "running":
                return DataView("preparing", blocked=view.blocked)
            case "failed":
                return DataView("failed" if view.is_invalid else "unavailable", message=view.message)
            case _:
                return DataView("absent")

    def sources(self, run: GoGRun) -> SourcesView:
        view = fetches.view(run, self.store_jobs, self.platform, polls.reader(self.polls, self._key(run)))
        if view.state != "fetching":
            self.polls.stop(self._key(run))
        return view

    def fetch_sources(self, run: GoGRun) -> None:
        self.store_jobs.fetch(fetches.job_name(run), self._placed(run))

    def store_state(self, owner: Stage | GoGRun) -> StoreView:
        view = self.store_jobs.view(_check_job(owner), owner.metadata.uid)
        match view.state:
            case "done":
                return store_checks.found(view.result)
            case "running":
                return StoreView("checking", blocked=view.blocked)
            case "failed":
                return StoreView("failed", message=view.message)
            case _:
                return StoreView("unknown")

    def check_store(self, owner: Stage | GoGRun) -> None:
        store = self._store(owner)
        body: dict[str, Any] = {"store": store.as_given(), "verify": True, "promoteTo": None, "retention": None}
        also = None
        if isinstance(owner, Stage):
            also, kept = owner.spec.promote_to, owner.spec.retention
            body |= {
                "keys": [owner.store_key],
                "promoteTo": also and also.as_given(),
                "retention": kept and kept.as_given(),
            }
        else:
            body["keys"] = list(owner.spec.stages.skip)
        self.store_jobs.start(_check_job(owner), self._placed(owner), "check", body, store, also)

    def tool_check(self, run: GoGRun) -> ToolCheckView:
        return tool_checks.view(run, self.store_jobs)

    def check_tools(self, run: GoGRun, urls: Mapping[str, str]) -> None:
        tool_checks.start(run, self._placed(run), urls, self.store_jobs)

    def erasure(self, run: GoGRun) -> ErasureView:
        view = erasures.view(run, self.api, self.namespace, self.store_jobs, polls.reader(self.polls, self._key(run)))
        if view.state != "running":
            self.polls.stop(self._key(run))
        return view

    def erase_artifacts(self, run: GoGRun) -> None:
        erasures.start(self._placed(run), self.api, self.namespace, self.store_jobs)

    def report(self, run: GoGRun) -> ReportView:
        view = self.store_jobs.view(names.store_job(run.name, "report"), run.metadata.uid)
        match view.state:
            case "running":
                return ReportView("writing", blocked=view.blocked)
            case "absent" | "done" | "failed":
                return ReportView(view.state, view.message)

    def write_report(self, run: GoGRun, children: tuple[Object, ...]) -> None:
        things = (run, *children)
        body = {
            "store": self._store(run).as_given(),
            "objects": [document(each) for each in things],
            "events": events.rows(self.api, self.namespace, things),
        }
        self.store_jobs.start(names.store_job(run.name, "report"), self._placed(run), "report", body, self._store(run))

    def default_store(self) -> settings.StoreSpec | None:
        return None

    # -- helpers

    def _key(self, thing: Object) -> Key:
        return Key(thing.kind, self.namespace, thing.name)

    def _path(self, kind: str, name: str = "", part: str = "") -> str:
        return paths.OURS[kind].path(self.namespace, name, part)

    def _placed(self, owner: Any) -> Any:
        """The owner of a store job with the content of its preset. Stages have it in their own spec."""
        if not isinstance(owner, GoGRun) or owner.spec.runtime is None:
            return owner
        return api_presets.of_run(owner, self.preset(owner.spec.runtime))

    def _store(self, owner: Object) -> settings.StoreSpec:
        """The store that the object's spec names. Raises Refused."""
        store = getattr(owner.spec, "store", None)
        if store is None:
            raise Refused(Reason.STORE_MISSING, "spec.store: missing (on a cluster, datasets are written to it)")
        return store


def _run_of(owner: Object) -> tuple[str, str]:
    """Name and uid of the run that an object belongs to; its own if it belongs to none."""
    for each in owner.metadata.owner_references:
        if each.kind == "GoGRun" and each.api_version.startswith(f"{paths.GROUP}/"):
            return each.name, each.uid
    return owner.name, owner.metadata.uid


def _check_job(owner: Stage | GoGRun) -> str:
    return names.store_job(owner.job_name if isinstance(owner, Stage) else owner.name, "check")
