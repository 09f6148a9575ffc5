"""A namespace of a Kubernetes cluster: objects are custom resources, Volcano runs jobs, KServe runs servers.

No state is kept between calls. The API server holds all of it, so an operator may die at any point, and two operators
may run at once without harm. API errors become Refused and Unavailable (`api_errors`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic.alias_generators import to_camel

from gog import spec as settings
from gog_operator.api import names, sequence
from gog_operator.api.meta import Reason
from gog_operator.api.objects import STAGE_KINDS, Endpoint, GoGRun, Object, Progress, Stage, Status, document
from gog_operator.build import children, config, pods, tool_check
from gog_operator.build.platform import Platform
from gog_operator.cluster import documents, events, kserve, paths, store_jobs, trainer_client, volcano
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.documents import Unreadable
from gog_operator.cluster.interface import AlreadyExists, Conflict, Refused, Thing
from gog_operator.cluster.kube import Api, ApiError, items
from gog_operator.plan.actions import (
    Checkpoint,
    DataView,
    Event,
    JobView,
    ReportView,
    ServerView,
    StoreView,
    ToolCheckView,
)

WORKDIR = "/work"


class RemoteCluster:
    """The Cluster of one namespace.

    Args:
        api: Client of the API server.
        namespace: Namespace of all its objects.
        platform: The installation's images and ports.
        request: Sends an HTTP request to a policy's pod.
        poll: Returns a trainer's newest progress document; by default it sends a request.
    """

    is_persistent = True

    def __init__(
        self,
        api: Api,
        namespace: str,
        platform: Platform,
        request: trainer_client.Request = trainer_client.request,
        poll: trainer_client.Poll | None = None,
    ) -> None:
        self.api, self.namespace, self.platform, self.request = TranslatedApi(api), namespace, platform, request
        self.poll = poll or (lambda _, url: request(url, trainer_client.SECONDS))
        self.jobs = volcano.VolcanoJobs(self.api, namespace, platform)
        self.servers = kserve.KServeServers(self.api, namespace, platform)
        self.store_jobs = store_jobs.StoreJobs(self.api, namespace, platform)

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
        if not isinstance(owner, GoGRun):
            return ()
        steps = sequence.steps(owner)
        stages = [self._readable(STAGE_KINDS[step.stage], step.name) for step in steps]
        tools = children.tool_names(owner).values() if sequence.tools_needed(steps) else ()
        endpoints = [self._readable(Endpoint, name) for name in (*tools, children.policy_name(owner))]
        return tuple(each for each in (*stages, *endpoints) if each is not None and each.owned_by(owner))

    def _readable(self, kind: type[Thing], name: str) -> Thing | None:
        """Raises Refused for an object that cannot be parsed, because its owner would decide wrongly without it."""
        try:
            return self.get(kind, name)
        except Unreadable as error:
            raise Refused(Reason.INVALID_INPUT, error.sentence) from None

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
        self.api.delete(self._path(kind, name), uid, foreground=kind != "Endpoint")

    def record(self, thing: Object, event: Event, now: datetime) -> None:
        events.record(self.api, self.namespace, thing, event, now)

    # -- jobs

    def create_job(self, stage: Stage, endpoints: dict[str, str], judge_model: str) -> None:
        data = self.data(stage).spec or stage.spec.data
        body = config.render(stage, data=data, endpoints=endpoints, judge_model=judge_model, workdir=WORKDIR)
        self.jobs.create(stage, body)

    def job(self, stage: Stage) -> JobView | None:
        return self.jobs.view(stage)

    def cancel_job(self, stage: Stage) -> None:
        self.jobs.cancel(stage)

    def progress(self, stage: Stage, job: JobView | None) -> Progress | None:
        """Requests the progress from the first pod, only while the job runs: a missing pod costs the whole timeout."""
        if job is None or job.state != "running":
            return None
        name = stage.job_name
        address = f"http://{name}-trainer-0-0.{name}.{self.namespace}.svc:{self.platform.progress_port}/progress"
        return trainer_client.parse_progress(self.poll(self.namespace, address))

    # -- servers

    def start_server(self, endpoint: Endpoint, port: int, now: datetime) -> None:
        self.servers.start(endpoint, self.data(endpoint).spec, now)

    def server(self, endpoint: Endpoint) -> ServerView | None:
        view = self.servers.view(endpoint, self.data(endpoint).spec)
        if view is None or view.state != "ready" or endpoint.spec.role != "policy" or not endpoint.spec.version:
            return view
        from gog_operator.cluster import policies  # imports numpy (15 MiB), which only a served policy needs

        return policies.with_version(view, self.servers.addresses(endpoint), endpoint.spec.version, self.request)

    def stop_server(self, name: str) -> None:
        self.servers.stop(name)

    def load_version(self, endpoint: Endpoint, version: str) -> None:
        self.servers.prepare(endpoint)  # so that a pod which starts now loads the new version
        pods = self.servers.addresses(endpoint)
        from gog_operator.cluster import policies

        policies.load(pods, version)

    # -- data, store, report

    def prepare_data(self, owner: Object) -> None:
        """Generates the dataset of a run, which the run's stages and endpoints share."""
        if _run_of(owner) != owner.name:
            return
        given: settings.DataSpec = owner.spec.data  # type: ignore[attr-defined]
        store = self._store(owner)
        body = {"store": _plain(store), "world": _plain(given.world or settings.WorldSpec())}
        self.store_jobs.start(names.store_job(owner.name, "data"), owner, "data", body, store)

    def data(self, owner: Object) -> DataView:
        given = getattr(owner.spec, "data", None)
        if given is None or given.world is None:
            return DataView("ready", given)
        view = self.store_jobs.view(names.store_job(_run_of(owner), "data"))
        match view.state:
            case "done":
                return DataView("ready", settings.DataSpec(uri=self._store(owner).uri))
            case "running":
                return DataView("preparing", blocked=view.blocked)
            case other:
                return DataView(other, message=view.message)

    def store_state(self, owner: Stage | GoGRun) -> StoreView:
        view = self.store_jobs.view(_check_job(owner), owner.metadata.uid)
        match view.state:
            case "done":
                return StoreView("known", _checkpoints(view.result))
            case "running":
                return StoreView("checking", blocked=view.blocked)
            case "failed":
                return StoreView("failed", message=view.message)
            case _:
                return StoreView("unknown")

    def check_store(self, owner: Stage | GoGRun) -> None:
        store = self._store(owner)
        body: dict[str, Any] = {"store": _plain(store), "verify": True, "promoteTo": None, "retention": None}
        also = None
        if isinstance(owner, Stage):
            also, kept = owner.spec.promote_to, owner.spec.retention
            body |= {"keys": [owner.store_key], "promoteTo": also and _plain(also), "retention": kept and _plain(kept)}
        else:
            body["keys"] = list(owner.spec.stages.skip)
        self.store_jobs.start(_check_job(owner), owner, "check", body, store, also)

    def tool_check(self, run: GoGRun) -> ToolCheckView:
        view = self.store_jobs.view(_tool_check_job(run), run.metadata.uid)
        match view.state:
            case "absent":
                return ToolCheckView("absent")
            case "running":
                return ToolCheckView("running", blocked=view.blocked)
            case "failed":
                return ToolCheckView("unavailable", f"the check did not run: {view.message}")
        message = str(view.result.get("message") or "")
        outcomes: dict[Any, Literal["passed", "failed"]] = {"passed": "passed", "failed": "failed"}
        return ToolCheckView(outcomes.get(view.result.get("outcome"), "unavailable"), message)

    def check_tools(self, run: GoGRun, urls: Mapping[str, str]) -> None:
        body = tool_check.config(run, urls, on_cluster=True).model_dump(mode="json", by_alias=True, exclude_unset=True)
        keys = pods.keys(tool_check.secrets(run), children.backends(run))
        # Before the next one starts, so that a crash in between leaves no job behind: the check is then started again.
        self.store_jobs.remove(_tool_check_job(run, run.status.tool_check.number - 1), run.metadata.uid)
        self.store_jobs.start(_tool_check_job(run), run, "tools", body, None, secret_env=keys)

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
            "store": _plain(self._store(run)),
            "objects": [document(each) for each in things],
            "events": events.rows(self.api, self.namespace, things),
        }
        self.store_jobs.start(names.store_job(run.name, "report"), run, "report", body, self._store(run))

    def default_store(self) -> settings.StoreSpec | None:
        return None

    # -- helpers

    def _path(self, kind: str, name: str = "", part: str = "") -> str:
        return paths.OURS[kind].path(self.namespace, name, part)

    def _store(self, owner: Object) -> settings.StoreSpec:
        """The store that the object's spec names. Raises Refused."""
        store = getattr(owner.spec, "store", None)
        if store is None:
            raise Refused(Reason.STORE_MISSING, "spec.store: missing (on a cluster, datasets are written to it)")
        return store


def _run_of(owner: Object) -> str:
    """Name of the run that an object belongs to; its own name if it belongs to none."""
    return next((each.name for each in owner.metadata.owner_references if each.kind == "GoGRun"), owner.name)


def _check_job(owner: Stage | GoGRun) -> str:
    return names.store_job(owner.job_name if isinstance(owner, Stage) else owner.name, "check")


def _tool_check_job(run: GoGRun, number: int | None = None) -> str:
    """Name of a check's job; that of the newest without a number."""
    return names.store_job(run.name, f"tools-{run.status.tool_check.number if number is None else number}")


def _plain(spec: settings.Spec) -> dict[str, Any]:
    return spec.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _checkpoints(result: Mapping[str, Any]) -> dict[str, Checkpoint]:
    found = result.get("checkpoints") or {}
    return {key: Checkpoint(key, int(each["step"]), each.get("complete")) for key, each in found.items() if each}
