"""An operator on a real API server, pass by pass, without threads and waiting: the clock belongs to the test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from gog_operator.api import names
from gog_operator.api.objects import KINDS
from gog_operator.build.platform import Platform
from gog_operator.cluster import kube, paths
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.kube import MERGE, Api, ApiError, items
from gog_operator.main import Workers
from gog_operator.resync import Resync
from gog_operator.workqueue import WorkQueue
from support import cluster_actors
from support.kube import ApiServer, wait_until_served
from support.operator_builders import manifest

STORE = {"uri": "s3://bucket/world", "secretName": "s3"}


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.start, self.passed = datetime.now(UTC).replace(microsecond=0), 0.0

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.passed)

    def seconds(self) -> float:
        return self.passed


class Workplace:
    """A namespace with an operator.

    Args:
        server: of the namespace, which is created.
        wrap: the API as the operator gets it; tests and actors use the plain one.
    """

    KEYS = ("curate", "sft", "stratify", "grpo", "evaluate")

    def __init__(self, server: ApiServer, wrap: Callable[[Api], Api] = lambda api: api) -> None:
        self.server = server
        self.api: Api = kube.connect(4, str(server.kubeconfig))
        self.namespace = server.namespace()
        wait_until_served(server, self.namespace)
        self.clock, self.scenario = Clock(), cluster_actors.Scenario()
        self.operator = self.make_operator(wrap(self.api))

    def make_operator(self, api: Api) -> Operator:
        return Operator(api, self.namespace, self.clock)

    def apply(self, **spec: Any) -> None:
        """Creates the run `world`."""
        self.create("GoGRun", "world", store=STORE, **spec)

    def create(self, kind: str, name: str, **spec: Any) -> None:
        body = manifest(kind, name, **spec)
        if kind == "ToolServer":
            body["spec"] = spec
        self.api.call("POST", paths.OURS[kind].path(self.namespace), body=body)

    def patch(self, kind: str, name: str, patch: dict[str, Any]) -> None:
        self.api.call("PATCH", paths.OURS[kind].path(self.namespace, name), body=patch, content=MERGE)

    def until(self, happens: Callable[[], Any], rounds: int = 200) -> Any:
        """Makes passes, advances the actors and moves the clock until it happens. Returns its value."""
        for _ in range(rounds):
            if value := happens():
                return value
            self.round()
        raise AssertionError(f"did not happen; {self.conditions_of_all()}")

    def round(self) -> None:
        self.operator.work()
        if not cluster_actors.advance(self.api, self.namespace, self.scenario):
            self.clock.passed += 5

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return self.api.call("GET", paths.OURS[kind].path(self.namespace, name))

    def find(self, path: str) -> dict[str, Any] | None:
        return TranslatedApi(self.api).find(path)

    def annotations(self, resource: paths.Resource, name: str) -> dict[str, str]:
        return self.api.call("GET", resource.path(self.namespace, name))["metadata"].get("annotations", {})

    def conditions(self, kind: str, name: str) -> dict[str, dict[str, Any]]:
        return {each["type"]: each for each in self.get(kind, name).get("status", {}).get("conditions") or ()}

    def condition(self, kind: str, name: str, type_: str) -> dict[str, Any] | None:
        """The condition, if it is true."""
        found = self.conditions(kind, name).get(type_)
        return found if found and found["status"] == "True" else None

    def events(self) -> list[dict[str, Any]]:
        listed = items(self.api, paths.EVENTS.path(self.namespace))
        return [each for each in listed if each.get("reportingComponent") == "gog-operator"]

    def job_name(self, short: str) -> str:
        """The full name of a job that a test calls `tune-a1`, by the uid of its stage; of no job before that exists."""
        name, _, attempt = short.rpartition("-a")
        found = [each["metadata"]["uid"] for each in self.stages() if each["metadata"]["name"] == name]
        return names.job(name, int(attempt), found[0] if found else "")

    def phase(self, job: str) -> str:
        """Phase of a Volcano Job. job: its short name."""
        found = self.find(paths.VOLCANO_JOBS.path(self.namespace, self.job_name(job))) or {}
        return found.get("status", {}).get("state", {}).get("phase", "")

    def job_pod(self, job: str, **state: Any) -> None:
        """Creates a pending pod of a job. state: of its container."""
        cluster_actors.job_pod(self.api, self.namespace, self.job_name(job), "Pending", **state)

    def stages(self) -> list[dict[str, Any]]:
        kinds = ("CurateStage", "SFTStage", "StratifyStage", "GRPOStage", "EvaluateStage")
        return [each for kind in kinds for each in items(self.api, paths.OURS[kind].path(self.namespace))]

    def conditions_of_all(self) -> list[str]:
        """Every condition of every custom resource, as text."""
        found = []
        for kind in KINDS:
            for each in items(self.api, paths.OURS[kind].path(self.namespace)):
                for one in each.get("status", {}).get("conditions") or ():
                    words = (each["metadata"]["name"], one["type"], one["status"], one["reason"], one["message"])
                    found.append(" ".join(words))
        return found


class Operator:
    """One life of an operator: its memory is lost when it dies, and rebuilt by the resync."""

    def __init__(self, api: Api, namespace: str, clock: Clock) -> None:
        self.queue = WorkQueue(clock.seconds, lambda: 0.5)
        self.workers = Workers(api, Platform(), self.queue, clock.now, clock=clock.seconds)
        cache, polls = self.workers.cache, self.workers.polls
        self.resync = Resync(api, (namespace,), Platform(), self.queue, clock.now, cache, polls)

    def work(self) -> int:
        """Resyncs, then makes passes until none is due. Returns how many."""
        with contextlib.suppress(ApiError):  # the next one will do
            self.resync.once()
        done = 0
        while True:
            if (key := self.queue.take()[0]) is not None:
                self.workers.process(key)
                done += 1
            elif (key := self.workers.polls.queue.take()[0]) is not None:
                self.workers.polls.process(key)
            elif (key := self.workers.policies.queue.take()[0]) is not None:
                self.workers.policies.process(key)
            else:
                return done
