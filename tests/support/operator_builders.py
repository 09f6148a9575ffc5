"""Builders of objects and views, and a cluster in memory, for tests of the control plane."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gog import spec as settings
from gog.offers import Asked
from gog_operator.api import objects
from gog_operator.api.conditions import put
from gog_operator.api.meta import Reason
from gog_operator.cluster.interface import AlreadyExists, Conflict
from gog_operator.plan.actions import (
    Checkpoint,
    DataView,
    Event,
    JobView,
    Launcher,
    PublicationView,
    ReportView,
    ServerView,
    SourcesView,
    StoreView,
    ToolCheckView,
)
from gog_operator.plan.erasure import ErasureView

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
STORE = settings.StoreSpec(uri="file:///store")
READY_DATA = DataView("ready", settings.DataSpec(path="/data"))
WORLD = {"model": {"base": "tiny"}, "data": {"world": {}}}
UNCHECKED = {"checkTools": False}
"""Of runs whose tools are toys, or whose first stage is what a test is about."""
LAUNCHER = Launcher("registry.example/gog-trainer:1", "batch.volcano.sh/v1alpha1", "Job")
S3 = {"uri": "s3://b/p"}


def until(happens: Callable[[], Any], patience: float = 120.0, pause: float = 0.005) -> Any:
    """Waits for a condition, asked every `pause` seconds, and returns its value. Fails after `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if value := happens():
            return value
        time.sleep(pause)
    raise AssertionError(f"did not happen within {patience} s")


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def manifest(kind: str = "GoGRun", name: str = "world", **spec: Any) -> dict[str, Any]:
    own = UNCHECKED if kind == "GoGRun" else {}
    body = {**WORLD, **own, **spec}
    return {"apiVersion": "gog.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": body}


def for_cluster(kind: str = "GoGRun", name: str = "w", **spec: Any) -> dict[str, Any]:
    """The minimal manifest that an API server accepts, with more in its spec."""
    base = {} if kind == "ToolServer" else {**WORLD, "store": S3}
    return {"apiVersion": "gog.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": {**base, **spec}}


def make_run(name: str = "world", **spec: Any) -> objects.GoGRun:
    run = objects.GoGRun.model_validate(manifest(name=name, **spec))
    return run.model_copy(update={"metadata": run.metadata.model_copy(update={"uid": f"uid-{name}"})})


def make_stage(
    kind: str = "SFTStage",
    *,
    status: Mapping[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> objects.Stage:
    """A stage that needs only its data. status: fields by snake_case name."""
    body = manifest(kind, "world-stage", store={"uri": STORE.uri}, **spec)
    body["metadata"]["annotations"] = annotations or {}
    stage = objects.KINDS[kind].model_validate(body)
    assert isinstance(stage, objects.Stage)
    return stage.model_copy(update={"status": stage.status.model_copy(update=dict(status or {}))})


def make_tool_server(
    role: str = "grounding", *, status: Mapping[str, Any] | None = None, **spec: Any
) -> objects.ToolServer:
    body = {"apiVersion": "gog.dev/v1alpha1", "kind": "ToolServer", "metadata": {"name": f"world-{role.lower()}"}}
    tool_server = objects.ToolServer.model_validate({**body, "spec": {"role": role, **spec}})
    return tool_server.model_copy(update={"status": tool_server.status.model_copy(update=dict(status or {}))})


def holding(type_: Any, reason: Reason = Reason.RUNNING, message: str = "", *, status: bool = True) -> tuple[Any, ...]:
    """Conditions with one of them set."""
    return put((), type_, status, reason, message, now=NOW)


def _check_of(owner: objects.Stage | objects.GoGRun) -> str:
    return owner.job_name if isinstance(owner, objects.Stage) else owner.name


@dataclass
class FakeJob:
    """A job: running until a test ends it."""

    stage: str
    view: JobView = field(default_factory=lambda: JobView("running"))


class FakeCluster:
    """A Cluster in memory. It refuses stale writes, as a real one does, and records every call."""

    def __init__(self, *, is_persistent: bool = False) -> None:
        self.is_persistent, self.wakes = is_persistent, False
        self.job_ttl_seconds: int | None = None
        self.checked: set[str] = set()
        self.reported = ReportView("absent") if is_persistent else ReportView("done")
        self.things: dict[tuple[str, str], objects.Object] = {}
        self.jobs: dict[str, FakeJob] = {}
        self.servers: dict[str, ServerView] = {}
        self.checkpoints: dict[str, Checkpoint] = {}
        self.made = DataView("absent")
        self.fetched = SourcesView("skipped")
        self.erased = ErasureView("absent")
        self.tool_checks: dict[int, ToolCheckView] = {}
        self.tool_urls: dict[str, str] = {}
        self.routes: dict[str, str] = {}
        self.reported_chats: objects.Progress | None = None
        self.publications: dict[str, PublicationView] = {}
        self.events: list[tuple[str, Event]] = []
        self.calls: list[str] = []
        self.now = NOW

    def get(self, kind: type[Any], name: str) -> Any:
        return self.things.get((kind.__name__, name))

    def list(self, kind: type[Any]) -> tuple[Any, ...]:
        return tuple(thing for (name, _), thing in sorted(self.things.items()) if name == kind.__name__)

    def children(self, owner: objects.Object) -> tuple[Any, ...]:
        stages = (each for name in settings.STAGES for each in self.list(objects.STAGE_KINDS[name]))
        return tuple(each for each in (*stages, *self.list(objects.ToolServer)) if each.owned_by(owner))

    def create(self, thing: objects.Object) -> None:
        if thing.key in self.things:
            raise AlreadyExists(thing.name)
        self.calls.append(f"create {thing.name}")
        metadata = thing.metadata.model_copy(update={"uid": str(uuid.uuid4()), "resource_version": "1"})
        self.things[thing.key] = thing.model_copy(update={"metadata": metadata})

    def patch_status(self, thing: objects.Object, status: objects.Status) -> None:
        current = self.things.get(thing.key)
        if current is None or current.metadata.resource_version != thing.metadata.resource_version:
            raise Conflict(thing.name)
        self.calls.append(f"status {thing.name}")
        self._write(current.model_copy(update={"status": status}))

    def patch(self, kind: str, name: str, *, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> None:
        current = self.things.get((kind, name))
        if current is None:
            return
        self.calls.append(f"patch {name}")
        changed = current.spec.model_copy(update=dict(spec))
        metadata = current.metadata.model_copy(update={"annotations": {**current.metadata.annotations, **annotations}})
        self._write(current.model_copy(update={"spec": changed, "metadata": metadata}))

    def delete(self, kind: str, name: str, uid: str = "") -> None:
        thing = self.things.get((kind, name))
        if thing is not None and thing.metadata.finalizers:
            if not thing.is_terminating:
                self.calls.append(f"delete {name}")
                metadata = thing.metadata.model_copy(update={"deletion_timestamp": self.now})
                self._write(thing.model_copy(update={"metadata": metadata}))
            return
        if self.things.pop((kind, name), None) is not None:
            self.calls.append(f"delete {name}")

    def set_finalizers(self, thing: objects.Object, finalizers: tuple[str, ...]) -> None:
        current = self.things.get(thing.key)
        if current is None or current.metadata.resource_version != thing.metadata.resource_version:
            raise Conflict(thing.name)
        self.calls.append(f"finalizers {thing.name} {' '.join(finalizers)}".rstrip())
        if current.is_terminating and not finalizers:
            del self.things[thing.key]
            return
        metadata = current.metadata.model_copy(update={"finalizers": finalizers})
        self._write(current.model_copy(update={"metadata": metadata}))

    def erasure(self, run: objects.GoGRun) -> ErasureView:
        return self.erased

    def erase_artifacts(self, run: objects.GoGRun) -> None:
        self.calls.append(f"erase {run.name}")
        self.erased = ErasureView("running")

    def _write(self, thing: objects.Object) -> None:
        number = str(int(thing.metadata.resource_version) + 1)
        metadata = thing.metadata.model_copy(update={"resource_version": number})
        self.things[thing.key] = thing.model_copy(update={"metadata": metadata})

    def record(self, thing: objects.Object, event: Event, now: datetime) -> None:
        self.events.append((thing.name, event))

    def launcher(self, stage: objects.Stage) -> Launcher | None:
        return LAUNCHER if self.is_persistent else None

    def create_job(self, stage: objects.Stage, endpoints: dict[str, str], judge_model: str) -> None:
        assert stage.job_name not in self.jobs, "a job's name is never used twice"
        live = [name for name, job in self.jobs.items() if job.stage == stage.name and job.view.state == "running"]
        assert not live, f"{stage.name} has a job already: {live}"
        self.calls.append(f"job {stage.job_name}")
        self.jobs[stage.job_name] = FakeJob(stage.name)

    def job(self, stage: objects.Stage) -> JobView | None:
        job = self.jobs.get(stage.job_name)
        return job.view if job else None

    def cancel_job(self, stage: objects.Stage) -> None:
        job = self.jobs.get(stage.job_name)
        if job is not None and job.view.state == "running":
            self.calls.append(f"cancel {stage.job_name}")
            job.view = JobView("cancelled", -15)

    def remove_jobs(self, owner: objects.Object) -> None:
        self.calls.append(f"remove jobs of {owner.name}")

    def start_server(self, tool_server: objects.ToolServer, port: int, now: datetime) -> None:
        old = self.servers.get(tool_server.name)
        if old is None or old.state == "exited":
            self.calls.append(f"serve {tool_server.name}")
            self.servers[tool_server.name] = ServerView("starting", port=port or 4711, started=now)

    def server(self, tool_server: objects.ToolServer) -> ServerView | None:
        view = self.servers.get(tool_server.name)
        if view is not None and tool_server.spec.role == "agent":
            return replace(view, routes=self.routes.get(tool_server.name, ""))
        return view

    def stop_server(self, name: str) -> None:
        if self.servers.pop(name, None) is not None:
            self.calls.append(f"stop {name}")

    def prepare_data(self, owner: objects.Object) -> None:
        if self.made.state == "absent":
            self.calls.append("data")
            self.made = DataView("preparing")

    def data(self, owner: objects.Object) -> DataView:
        given = getattr(owner.spec, "data", None)
        return self.made if given is not None and given.world is not None else DataView("ready", given)

    def progress(self, stage: objects.Stage, job: Any) -> objects.Progress | None:
        return None

    def load_version(self, tool_server: objects.ToolServer, version: str) -> None:
        self.calls.append(f"load {version} {tool_server.name}")
        self.servers[tool_server.name] = replace(self.servers[tool_server.name], version=version)

    def store_state(self, owner: objects.Stage | objects.GoGRun) -> StoreView:
        """On a persistent cluster, known only after a check since the attempt."""
        if self.is_persistent and _check_of(owner) not in self.checked:
            return StoreView("unknown")
        keys = (owner.store_key,) if isinstance(owner, objects.Stage) else owner.spec.stages.skip
        return StoreView("known", {key: self.checkpoints[key] for key in keys if key in self.checkpoints})

    def check_store(self, owner: objects.Stage | objects.GoGRun) -> None:
        self.calls.append(f"check {_check_of(owner)}")
        self.checked.add(_check_of(owner))

    def sources(self, run: objects.GoGRun) -> SourcesView:
        return self.fetched

    def fetch_sources(self, run: objects.GoGRun) -> None:
        self.calls.append("fetch")
        self.fetched = SourcesView("fetching")

    def tool_check(self, run: objects.GoGRun) -> ToolCheckView:
        return self.tool_checks.get(run.status.tool_check.number, ToolCheckView("absent"))

    def check_tools(self, run: objects.GoGRun, urls: Mapping[str, str]) -> None:
        number = run.status.tool_check.number
        assert number not in self.tool_checks, "a check is started once"
        self.calls.append(f"tools {number}")
        self.tool_checks[number] = ToolCheckView("running")
        self.tool_urls = dict(urls)

    def set_routes(self, agent: objects.ToolServer, routes: str) -> None:
        self.calls.append(f"routes {agent.name}")
        self.routes[agent.name] = routes

    def chats(self, agent: objects.ToolServer) -> objects.Progress | None:
        return self.reported_chats

    def agent_store(self, run: objects.GoGRun, name: str) -> settings.StoreSpec | None:
        return None

    def publication(self, run: objects.GoGRun) -> PublicationView:
        return self.publications.get(run.name, PublicationView("absent"))

    def publish(self, run: objects.GoGRun, asked: Asked, store: settings.StoreSpec) -> None:
        self.calls.append(f"publish {asked.checkpoint} as {asked.agent} against {asked.served or 'nothing'}")
        self.publications.setdefault(run.name, PublicationView("running"))

    def report(self, run: objects.GoGRun) -> ReportView:
        return self.reported

    def write_report(self, run: objects.GoGRun, children: tuple[objects.Object, ...]) -> None:
        self.calls.append("report")
        self.reported = ReportView("done")

    def default_store(self) -> settings.StoreSpec:
        return STORE

    # -- what happens outside of the control plane

    def answer(self) -> None:
        """Makes every starting server and the dataset ready."""
        for name, view in self.servers.items():
            if view.state == "starting":
                url = f"http://127.0.0.1:{view.port}"
                self.servers[name] = ServerView("ready", url, view.port, view.started, True)
        if self.made.state == "preparing":
            self.made = READY_DATA

    def finish(self, name: str, *, code: int = 0, step: int | None = 1, lines: tuple[str, ...] = ()) -> None:
        """Ends a job. step: of the checkpoint that it leaves; None for none."""
        job = self.jobs[name]
        stage = next(thing for thing in self.things.values() if thing.name == job.stage)
        assert isinstance(stage, objects.Stage)
        if step is not None:
            self.checkpoints[stage.store_key] = Checkpoint(stage.store_key, step)
        job.view = JobView("failed" if code else "succeeded", code, lines)

    def crash(self) -> None:
        """The control plane of one machine dies: jobs and servers are lost, objects and store remain."""
        for job in self.jobs.values():
            job.view = JobView("lost")
        self.servers.clear()
        self.made = DataView("absent")
