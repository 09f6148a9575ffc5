"""A run on a real API server from beginning to end in a second: one thread, no waiting, and an operator that may die.

Problem: thousands of runs, each with one fault at one call, must be played, and each must go the same way every time.
Decision: operator and actors take turns until neither has anything to do; then time, which is the stage's own, goes on
to the next thing that is due. Watching is played from what the witness sees, so that the operator makes the calls that
it would make beside a watch. Conditions of the world that must always hold are checked after every write.
"""

from __future__ import annotations

import functools
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from gog_operator import main, resync, watch
from gog_operator.api.objects import KINDS
from gog_operator.build.platform import Platform
from gog_operator.cluster import adapters, kube, paths
from gog_operator.cluster.adapters import Answer
from gog_operator.cluster.kube import MERGE, Api, ApiError
from gog_operator.cluster.remote import RemoteCluster
from gog_operator.main import Workers
from gog_operator.resync import Resync
from gog_operator.workqueue import WorkQueue
from support import cluster_actors, cluster_controllers
from support.faulty_api import Death, Fault, FaultyApi, Remembered, Witness, nothing, selected
from support.operator_builders import manifest

STORE = {"uri": "s3://bucket/world", "secretName": "s3"}
RESYNC = 60.0
OVER = ("Completed", "Failed", "Terminated", "Aborted")
"""Phases of a Volcano Job that has no pods."""
ROUNDS = 400
STAGE_KINDS = ("CurateStage", "SFTStage", "StratifyStage", "GRPOStage", "EvaluateStage")

Document = dict[str, Any]


class Clock:
    """Seconds that a play lets go by."""

    def __init__(self) -> None:
        self.start, self.passed = datetime.now(UTC).replace(microsecond=0), 0.0

    def now(self) -> datetime:
        return self.start + timedelta(seconds=int(self.passed))

    def seconds(self) -> float:
        return self.passed


class Life:
    """An operator from its start to its death: what it knows is lost with it."""

    def __init__(self, api: Api, namespace: str, clock: Clock) -> None:
        self.clock, self.listing = clock, clock.passed
        self.queue = WorkQueue(clock.seconds, lambda: 0.5)
        self.workers = Workers(api, Platform(), self.queue, clock.now)
        self.resync = Resync(api, (namespace,), Platform(), self.queue, clock.now)
        self.watcher = watch.Watcher(self.queue, self.resync.seen)

    def work(self) -> None:
        """The resync when it is its time, then passes until nothing is due."""
        if self.clock.passed >= self.listing:
            self.list()
        while (key := self.queue.take()[0]) is not None:
            self.workers.one(key)

    def list(self) -> None:
        try:
            self.resync.once()
            self.listing = self.clock.passed + RESYNC
        except ApiError as error:
            self.listing = self.clock.passed + min(error.retry_after or resync.AGAIN, RESYNC)

    def hears(self, type_: str, body: Document) -> None:
        """What its watches tell it."""
        resource = next(
            (each for each in watch.WATCHED if (_group(body), _plural(body)) == (each.group, each.plural)), None
        )
        if resource is None or (resource not in paths.OURS.values() and not selected(body, paths.LABEL)):
            return
        self.watcher.event(resource.name, type_, body)

    def wakes(self) -> float:
        """When it next does something by itself."""
        key, seconds = self.queue.take()
        assert key is None
        return min(self.clock.passed + seconds, self.listing)


def _group(body: Document) -> str:
    return str(body["apiVersion"]).rpartition("/")[0]


def _plural(body: Document) -> str:
    return f"{body['kind'].lower()}s"


class Theatre:
    """A namespace with one run, `world`, its operator, and whoever else is there. spec: of the run; name: another one."""

    def __init__(self, kubeconfig: str, namespace: str, fault: Fault = nothing, **spec: Any) -> None:
        self.api = _connection(kubeconfig)
        self.namespace, self.clock = namespace, Clock()
        self.name = str(spec.get("name", "world"))
        self.witness = Witness(self.api, self.clock.now)
        self.faulty = FaultyApi(self.witness, fault)
        self.actors = Remembered(self.witness)
        self.play = cluster_actors.Play()
        self.policies = Policies()
        self.wrongs: list[str] = []
        self.witness.listeners += [self._hear, self._judge]
        self._prepare(spec)
        self.life = self._begin()

    def _prepare(self, spec: Mapping[str, Any]) -> None:
        place = {"namespace": self.namespace}
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}
        self.api.call("POST", "/api/v1/namespaces", body=body)
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", **place}}
        self.api.call("POST", f"/api/v1/namespaces/{self.namespace}/serviceaccounts", body=account)
        self.life: Life | None = None
        self.create(manifest(**{"store": STORE, **spec}))

    def create(self, body: Document) -> None:
        body["metadata"]["namespace"] = self.namespace
        self.witness.call("POST", paths.OURS[body["kind"]].path(self.namespace), body=body)

    def _begin(self) -> Life:
        return Life(self.faulty, self.namespace, self.clock)

    # -- playing

    def to_the_end(self) -> None:
        """Until the run is over, or gone with all that was of it, and nothing has anything to do any more."""
        self.until(lambda: self.finished or not self.run)
        self.rest()

    def rest(self) -> None:
        """Until two resyncs in a row have found nothing to change."""
        quiet = 0
        for _ in range(ROUNDS):
            quiet = 0 if self.round() else quiet + 1
            if quiet > 2:
                return
            if quiet:
                self.clock.passed = self.life.listing
        raise AssertionError(f"never comes to rest: {self.told()}")

    def until(self, happens: Callable[[], Any]) -> None:
        for _ in range(ROUNDS):
            if happens():
                return
            if not self.round():
                self.clock.passed = max(self.life.wakes(), self.clock.passed)
        raise AssertionError(f"did not happen; {self.told()}")

    def round(self) -> bool:
        """Operator and actors have a turn each; whether anything changed."""
        before = self.witness.writes
        with self._surroundings():
            self.work()
        self.witness.settle()
        moved = cluster_actors.advance(self.actors, self.namespace, self.play)
        moved += cluster_controllers.advance(self.actors, self.namespace, self.play)
        assert not self.wrongs, self.wrongs
        return bool(moved) or self.witness.writes > before

    def work(self) -> None:
        """The operator's turn; one that dies is followed by the next at once."""
        try:
            self.life.work()
        except Death:
            self.life = self._begin()

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """What the operator reaches besides the API server, and what it says of surprises."""
        with (
            mock.patch.object(RemoteCluster.__init__, "__defaults__", (self._ask,)),
            mock.patch.object(adapters, "asker", return_value=self.policies.answer),
            mock.patch.object(main.log, "exception", self._surprised),
        ):
            yield

    def _surprised(self, words: str, *values: Any) -> None:
        import traceback

        self.wrongs.append(f"{words % values}: {traceback.format_exc()}")

    def _ask(self, url: str, timeout: float) -> Document | None:
        if url.endswith("/progress"):
            job = url.removeprefix("http://").partition("-trainer-0-0.")[0]
            running = phase(self.job(job) or {}) == "Running"
            return {"step": 7, "total": 10, "metrics": {"reward": 0.5}} if running else None
        answer = self.policies.answer(url, None)
        return json.loads(answer.body) if answer.status == 200 else None

    # -- looking

    def _hear(self, type_: str, body: Document) -> None:
        if self.life is not None:
            self.life.hears(type_, body)

    def _judge(self, type_: str, body: Document) -> None:
        """Never two live attempts of one stage."""
        if type_ != "ADDED" or (body["kind"], _group(body)) != ("Job", paths.VOLCANO_JOBS.group):
            return
        owner = _stage_of(body)
        for path, each in self.witness.of(paths.VOLCANO_JOBS):
            if each is not body and _stage_of(each) == owner and phase(each) not in OVER:
                self.witness.look(path)  # the collector may have taken it
        jobs = [each for _, each in self.witness.of(paths.VOLCANO_JOBS) if _stage_of(each) == owner]
        live = [each["metadata"]["name"] for each in jobs if phase(each) not in OVER]
        if len(live) > 1:
            self.wrongs.append(f"{owner} has two live jobs: {live}")

    @property
    def run(self) -> Document:
        return self.get("GoGRun", self.name)

    def get(self, kind: str, name: str) -> Document:
        return self.witness.objects.get(paths.OURS[kind].path(self.namespace, name), {})

    def job(self, name: str) -> Document | None:
        """A Volcano Job."""
        return self.witness.objects.get(paths.VOLCANO_JOBS.path(self.namespace, name))

    @property
    def finished(self) -> str:
        """Complete or Failed, once the run is."""
        return next((each for each in ("Complete", "Failed") if condition(self.run, each, "True")), "")

    def told(self) -> list[str]:
        """What every object of ours says of itself."""
        return [
            " ".join((each["metadata"]["name"], one["type"], one["status"], one["reason"], one["message"]))
            for kind in KINDS
            for _, each in self.witness.of(paths.OURS[kind])
            for one in each.get("status", {}).get("conditions") or ()
        ]

    def state(self) -> dict[str, Any]:
        """All that must be the same whatever happened on the way: what is there, and what it says."""
        found: dict[str, Any] = {}
        for path, body in self.witness.objects.items():
            resource = paths.resource_of(path)
            if resource is None or resource in (paths.EVENTS, paths.PODS, paths.LEASES):
                continue
            found[f"{resource.plural}.{resource.group}/{body['metadata']['name']}"] = essence(body)
        return found

    def events(self) -> Counter[str]:
        rows = [each for _, each in self.witness.of(paths.EVENTS)]
        return Counter(f"{each['involvedObject']['name']} {each['reason']}: {each['message']}" for each in rows)

    # -- meddling, as others would

    def edit(self, path: str, patch: Document) -> None:
        self.witness.call("PATCH", path, body=patch, content=MERGE)

    def remove(self, path: str) -> None:
        self.witness.call("DELETE", path)


PASSING = ("startTime", "completionTime", "attemptTime", "retryTime", "restarts", "progress", "summary")
"""What depends on when somebody looked."""


def essence(body: Document) -> Any:
    """What must be the same at the end of an object's life, whatever happened in between."""
    status = body.get("status", {})
    if body["apiVersion"].startswith("gog.dev"):
        told = [
            (each["type"], each["status"], each["reason"], each["message"]) for each in status.get("conditions") or ()
        ]
        rest = {key: value for key, value in status.items() if key not in (*PASSING, "conditions")}
        return sorted(told), rest, body["spec"]
    if body["kind"] == "Job" and body["apiVersion"].startswith("batch.volcano"):
        return phase(body)
    if body["kind"] == "Job":
        return body["metadata"]["annotations"].get("gog.dev/result")
    return None


def _stage_of(job: Document) -> str:
    return str(job["metadata"]["name"]).rpartition("-a")[0]


def phase(job: Mapping[str, Any]) -> str:
    return str(job.get("status", {}).get("state", {}).get("phase") or "")


def condition(body: Mapping[str, Any], type_: str, status: str) -> Document | None:
    found = body.get("status", {}).get("conditions") or ()
    return next((each for each in found if (each["type"], each["status"]) == (type_, status)), None)


class Policies:
    """Pods that serve the policy, by address."""

    def __init__(self) -> None:
        self.loaded: dict[str, list[str]] = {}
        self.default: dict[str, str] = {}

    def answer(self, url: str, body: Mapping[str, Any] | None) -> Answer:
        host, _, path = url.removeprefix("http://").partition("/")
        loaded, name = (
            self.loaded.setdefault(host, ["base"]),
            str((body or {}).get("lora_name") or (body or {}).get("model")),
        )
        match f"/{path}":
            case adapters.MODELS:
                default = self.default.get(host, "base")
                return _said({"data": [{"id": each, "owned_by": "gog", "default": each == default} for each in loaded]})
            case adapters.LOAD:
                loaded.append(name)
            case adapters.UNLOAD:
                loaded.remove(name)
            case adapters.DEFAULT:
                self.default[host] = name
        return _said({"model": name})


def _said(body: Document) -> Answer:
    return Answer(200, json.dumps(body).encode())


@functools.cache
def _connection(kubeconfig: str) -> Api:
    return kube.connect(4, kubeconfig)


logging.getLogger("gog_operator").setLevel(logging.CRITICAL)
