"""One machine as a cluster: objects are files, jobs and servers are processes, all under one run folder.

    objects/    custom resources with their status     logs/<stage>/<attempt>/, logs/<role>/<start>/
    work/       scratch of each stage                   store/      checkpoints, unless the manifest names a store
    data/       the embedded world                      report/     written at the end

The caller holds the folder's lock and has ended the processes of an earlier control loop, so that no process runs at
the start. All other state is read from files.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from gog import catalog, progress, store
from gog import spec as settings
from gog_operator.api.objects import STAGE_KINDS, Endpoint, GoGRun, Object, Progress, Stage, Status
from gog_operator.build import app, config, servers, tool_check
from gog_operator.cluster import local_check, trainer_client
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
    ReportView,
    ServerView,
    StoreView,
    ToolCheckView,
)


class LocalCluster:
    """The Cluster of one run folder.

    Args:
        folder: Run folder.
        program: Command line of `gog`; default: that of this process.
    """

    is_persistent = False

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
        self._stores: dict[settings.StoreSpec, store.Store] = {}

    # -- objects

    def get(self, kind: type[Thing], name: str) -> Thing | None:
        return self.objects.get(kind, name)

    def list(self, kind: type[Thing]) -> tuple[Thing, ...]:
        return self.objects.list(kind)

    def children(self, owner: Object) -> tuple[Object, ...]:
        stages = (each for name in settings.STAGES for each in self.list(STAGE_KINDS[name]))
        return tuple(each for each in (*stages, *self.list(Endpoint)) if each.owned_by(owner))

    def create(self, thing: Object) -> None:
        self.objects.create(thing)

    def patch_status(self, thing: Object, status: Status) -> None:
        self.objects.patch_status(thing, status)

    def patch(self, kind: str, name: str, *, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> None:
        self.objects.patch(kind, name, spec=spec, annotations=annotations)

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

    # -- servers

    def start_server(self, endpoint: Endpoint, port: int, now: datetime) -> None:
        data = self.data(endpoint).spec if endpoint.spec.data else None

        def command(ready_file: str) -> list[str]:
            line = servers.arguments(endpoint, host="127.0.0.1", port=port, ready_file=ready_file, data=data)
            return [*self.program, "serve", *line]

        self.servers.start(
            endpoint.name,
            catalog.SERVER_BY_NAME[endpoint.spec.role].command,
            command,
            now,
            self.processes.environment(),
        )

    def server(self, endpoint: Endpoint) -> ServerView | None:
        return self.servers.view(endpoint.name)

    def stop_server(self, name: str) -> None:
        self.servers.stop(name)

    def load_version(self, endpoint: Endpoint, version: str) -> None:
        """Does nothing, because servers end with their run and a run's policy is not served."""

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
