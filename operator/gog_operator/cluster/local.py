"""One machine as a cluster: objects are files, jobs and servers are processes, all under one run folder.

    objects/    custom resources with their status     logs/<stage>/<attempt>/, logs/<role>/<start>/
    work/       scratch of each stage                   store/      checkpoints, unless the manifest names a store
    data/       the embedded world                      report/     written at the end

The caller holds the folder's lock and has ended the processes of an earlier control loop, so that no process runs at
the start. All other state is read from files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from gog import catalog, progress, store
from gog import spec as settings
from gog.offers import Asked
from gog_operator.api.objects import KINDS, STAGE_KINDS, GoGRun, Object, Progress, Stage, Status, ToolServer
from gog_operator.build import agents, app, config, servers, tool_check
from gog_operator.cluster import local_agents, local_check, trainer_client
from gog_operator.cluster.dataset import DatasetMaker
from gog_operator.cluster.files import ObjectFiles, as_user_error, write_atomically
from gog_operator.cluster.interface import Thing
from gog_operator.cluster.jobs import LocalJobs
from gog_operator.cluster.processes import Processes
from gog_operator.cluster.servers import LocalServers
from gog_operator.plan.actions import (
    Checkpoint,
    DataView,
    Event,
    JobView,
    PublicationView,
    ReportView,
    ServerView,
    SourcesView,
    StoreView,
    ToolCheckView,
)
from gog_operator.plan.erasure import ErasureView

AGENT_KEYS = "GOG_AGENT_KEYS"
"""Environment variable with the file of the keys that chats with an agent require."""


class LocalCluster:
    """The Cluster of one run folder.

    Args:
        folder: Run folder.
        program: Command line of `gog`; default: that of this process.
    """

    is_persistent = False
    job_ttl_seconds = None
    wakes = False

    def __init__(self, folder: Path, program: tuple[str, ...] | None = None) -> None:
        self.folder = folder.absolute()
        self.program = program or own_program()
        self.objects = ObjectFiles(self.folder / "objects")
        self.processes = Processes(self.folder)
        self.jobs = LocalJobs(self.processes)
        self.servers = LocalServers(self.processes, self.folder / "logs")
        self.listeners: list[Callable[[Object, Event, datetime], None]] = []
        """Callbacks for events."""
        self.dataset = DatasetMaker(self.folder, self.processes)
        self._tool_check = local_check.LocalCheck()
        self.agents = local_agents.LocalAgents()
        self._stores: dict[settings.StoreSpec, store.Store] = {}

    # -- objects

    def get(self, kind: type[Thing], name: str) -> Thing | None:
        return self.objects.get(kind, name) or self._beside(kind.__name__, name).get(kind, name)

    def _beside(self, kind: str, name: str) -> ObjectFiles:
        """The objects of the folder of that name where it is an agent's, because an agent outlives its runs; else ours."""
        folder = self.folder.parent / name
        return ObjectFiles(folder / "objects") if kind == ToolServer.__name__ and folder.is_dir() else self.objects

    def list(self, kind: type[Thing]) -> tuple[Thing, ...]:
        return self.objects.list(kind)

    def children(self, owner: Object) -> tuple[Object, ...]:
        stages = (each for name in settings.STAGES for each in self.list(STAGE_KINDS[name]))
        return tuple(each for each in (*stages, *self.list(ToolServer)) if each.owned_by(owner))

    def preset(self, name: str) -> None:
        """Pods have no meaning on one machine."""

    def create(self, thing: Object) -> None:
        if isinstance(thing, ToolServer) and thing.spec.role == "agent":
            ObjectFiles(self.folder.parent / thing.name / "objects").create(thing)
        else:
            self.objects.create(thing)

    def patch_status(self, thing: Object, status: Status) -> None:
        self.objects.patch_status(thing, status)

    def patch(self, kind: str, name: str, *, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> None:
        own = self.objects.get(KINDS[kind], name) is not None
        (self.objects if own else self._beside(kind, name)).patch(kind, name, spec=spec, annotations=annotations)

    def delete(self, kind: str, name: str, uid: str = "") -> None:
        self.objects.delete(kind, name)

    def record(self, thing: Object, event: Event, now: datetime) -> None:
        """Appends a line to events.jsonl and calls the listeners."""
        line = {
            "time": now.isoformat(timespec="seconds"),
            "kind": thing.kind,
            "name": thing.name,
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason,
            "message": event.message,
        }
        with as_user_error(self.folder), (self.folder / "events.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        for listener in self.listeners:
            listener(thing, event, now)

    # -- jobs

    def launcher(self, stage: Stage) -> None:
        """None: a process has no image."""

    def create_job(self, stage: Stage, endpoints: dict[str, str], judge_model: str) -> None:
        workdir = self.workdir(stage)
        with as_user_error(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
        data = self.data(stage).spec or stage.spec.data
        body = config.render(stage, data=data, endpoints=endpoints, judge_model=judge_model, workdir=str(workdir))
        path = workdir / "config.yaml"
        write_atomically(path, yaml.safe_dump(body, sort_keys=False, allow_unicode=True))
        definition = app.compile_stage(
            stage.stage,
            name=stage.job_name,
            config=str(path),
            program=shlex.join(self.program),
            env=self.processes.environment(),
        )
        self.jobs.create(stage.job_name, definition, self.log_folder(stage))

    def job(self, stage: Stage) -> JobView | None:
        return self.jobs.view(stage.job_name, self.log_folder(stage)) if stage.status.attempt else None

    def cancel_job(self, stage: Stage) -> None:
        self.jobs.cancel(stage.job_name)

    def progress(self, stage: Stage, job: JobView | None) -> Progress | None:
        return trainer_client.parse_progress(progress.read(self.workdir(stage)))

    def remove_jobs(self, owner: Stage | GoGRun) -> None:
        """Never called: jobs end with `gog run`, and their logs are in the run folder."""

    # -- servers

    def start_server(self, tool_server: ToolServer, port: int, now: datetime) -> None:
        data = self.data(tool_server).spec if tool_server.spec.data else None

        def command(ready_file: str) -> list[str]:
            line = servers.arguments(tool_server, host="127.0.0.1", port=port, ready_file=ready_file, data=data)
            if tool_server.spec.role == "agent":
                line += agents.arguments(tool_server, str(self._routes(tool_server)), os.environ.get(AGENT_KEYS, ""))
            return [*self.program, "serve", *line]

        self.servers.start(
            tool_server.name,
            catalog.SERVER_BY_NAME[tool_server.spec.role].command,
            command,
            now,
            self.processes.environment(),
        )

    def server(self, tool_server: ToolServer) -> ServerView | None:
        view = self.servers.view(tool_server.name)
        if view is not None and view.state == "ready" and tool_server.spec.role == "policy":
            return dataclasses.replace(view, version=self.agents.version(view, tool_server.spec.version))
        if view is not None and tool_server.spec.role == "agent":
            return dataclasses.replace(view, routes=self.agents.routes(self._routes(tool_server)))
        return view

    def stop_server(self, name: str) -> None:
        self.servers.stop(name)

    def load_version(self, tool_server: ToolServer, version: str) -> None:
        view = self.servers.view(tool_server.name)
        if view is not None and view.url:
            kept = tool_server.spec.store or self.default_store()
            self.agents.load(view.url, version, kept, self.folder / "work" / "adapters")

    # -- agents

    def _routes(self, agent: ToolServer) -> Path:
        return self.folder / "work" / f"{agent.name}.routes.json"

    def set_routes(self, agent: ToolServer, routes: str) -> None:
        path = self._routes(agent)
        with as_user_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, routes)

    def chats(self, agent: ToolServer) -> Progress | None:
        return self.agents.chats(agent.status.url)

    def agent_store(self, run: GoGRun, name: str) -> settings.StoreSpec | None:
        """A folder of the agent, unless the run has a store of its own."""
        return None if run.spec.store else settings.StoreSpec(uri=(self.folder.parent / name / "store").as_uri())

    def publication(self, run: GoGRun) -> PublicationView:
        return self.agents.publication

    def publish(self, run: GoGRun, asked: Asked, store: settings.StoreSpec) -> None:
        self.agents.publish(run.spec.store or self.default_store(), store, asked)

    # -- data and checkpoints

    def prepare_data(self, owner: Object) -> None:
        given = data_of(owner)
        if given is not None and given.world is not None:
            self.dataset.start(self.program, given.world)

    def data(self, owner: Object) -> DataView:
        given = data_of(owner)
        if given is None or given.world is None:
            return DataView("ready", given)
        return self.dataset.view()

    def checkpoint(self, store_spec: settings.StoreSpec, key: str) -> Checkpoint | None:
        if store_spec not in self._stores:
            self._stores[store_spec] = store.open_store(store_spec)
        newest = self._stores[store_spec].latest(key)
        return Checkpoint(key, newest.step, newest.meta.get("complete")) if newest is not None else None

    def sources(self, run: GoGRun) -> SourcesView:
        return SourcesView("skipped")  # stages fetch into folders that the machine's runs share

    def fetch_sources(self, run: GoGRun) -> None:
        raise NotImplementedError("a run of one machine has no model cache")

    def store_state(self, owner: Stage | GoGRun) -> StoreView:
        """Known at once, unless the bucket does not respond; then a later pass checks again."""
        keys: tuple[str, ...] = (owner.store_key,) if isinstance(owner, Stage) else owner.spec.stages.skip
        try:
            found = {key: self.checkpoint(owner.spec.store or self.default_store(), key) for key in keys}
        except store.Unavailable:
            return StoreView("checking")
        return StoreView("known", {key: each for key, each in found.items() if each is not None})

    def check_store(self, owner: Stage | GoGRun) -> None:
        """Does nothing, because `store_state` reads the store itself."""

    def tool_check(self, run: GoGRun) -> ToolCheckView:
        return self._tool_check.view(run.status.tool_check.number)

    def check_tools(self, run: GoGRun, urls: Mapping[str, str]) -> None:
        self._tool_check.start(run.status.tool_check.number, tool_check.config(run, urls, on_cluster=False))

    def set_finalizers(self, thing: Object, finalizers: tuple[str, ...]) -> None:
        """Files have none."""

    def erasure(self, run: GoGRun) -> ErasureView:
        return ErasureView("done", "on one machine the run folder is deleted by hand")

    def erase_artifacts(self, run: GoGRun) -> None:
        """Never called: objects on one machine are not deleted by the API."""

    def report(self, run: GoGRun) -> ReportView:
        """Always done, because `gog run` writes the report when it exits, also after a failure."""
        return ReportView("done")

    def write_report(self, run: GoGRun, children: tuple[Object, ...]) -> None:
        """Does nothing (see `report`)."""

    def default_store(self) -> settings.StoreSpec:
        return settings.StoreSpec(uri=(self.folder / "store").as_uri())

    # -- folders and the end

    def workdir(self, stage: Stage) -> Path:
        return self.folder / "work" / stage.store_key

    def log_folder(self, stage: Stage) -> Path:
        return self.folder / "logs" / stage.store_key / str(stage.status.attempt)

    def close(self, grace: float = 20.0, hurry: Callable[[], bool] = lambda: False) -> None:
        """Ends every process, stages first, because they may need their tools to write a last checkpoint.

        Args:
            grace: Seconds between SIGTERM and SIGKILL of a stage.
            hurry: Whether to stop waiting.
        """
        self.jobs.close(grace, hurry)
        self.dataset.close()
        self.servers.close()


def data_of(owner: Object) -> settings.DataSpec | None:
    return getattr(owner.spec, "data", None)


def own_program() -> tuple[str, ...]:
    """The command line of the running gog. -P keeps the working directory off the module path."""
    script = Path(sys.executable).parent / "gog"
    return (str(script),) if script.is_file() else (sys.executable, "-P", "-m", "gog_console")
