"""Simulates a complete run on a real API server in a second, in one thread and without waiting; the operator may die.

Problem: thousands of runs, each with one fault at one call, must be simulated, each deterministically. Decision:
operator and actors take turns until neither has anything to do; then the harness advances its clock to the next due
time. The watch stream is replayed from the recorder's writes, so that the operator makes the same calls as with a real
watch. Invariants are checked after every write.
"""

from __future__ import annotations

import functools
import json
import logging
import traceback
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
from gog_operator.cluster.kube import MERGE, Api, ApiError
from gog_operator.cluster.trainer_client import Request
from gog_operator.main import Workers
from gog_operator.resync import Resync
from gog_operator.workqueue import WorkQueue
from support import cluster_actors, cluster_controllers
from support.faulty_api import Death, FaultyApi, no_fault
from support.job_names import plain
from support.operator_builders import manifest
from support.policy_pods import PolicyPods
from support.recorder import RecordedApi, Recorder, matches

STORE = {"uri": "s3://bucket/world", "secretName": "s3"}
RESYNC_SECONDS = 60.0
OVER = ("Completed", "Failed", "Terminated", "Aborted")
"""Phases of a Volcano Job without pods."""
DROP: Any = ()
ROUNDS = 400
"""Maximum number of turns; a run that takes more counts as endless."""

Document = dict[str, Any]


class Clock:
    """A clock that moves when the harness moves it."""

    def __init__(self) -> None:
        self.start, self.passed = datetime.now(UTC).replace(microsecond=0), 0.0

    def now(self) -> datetime:
        return self.start + timedelta(seconds=int(self.passed))

    def seconds(self) -> float:
        return self.passed


class OperatorProcess:
    """One process of an operator, whose memory is lost when it dies."""

    def __init__(self, api: Api, namespace: str, clock: Clock, request: Request) -> None:
        self.clock, self.next_resync = clock, clock.passed
        self.queue = WorkQueue(clock.seconds, lambda: 0.5)
        self.workers = Workers(api, Platform(), self.queue, clock.now, request, clock.seconds)
        self.cache, self.polls = self.workers.cache, self.workers.polls
        self.resync = Resync(api, (namespace,), Platform(), self.queue, clock.now, self.cache, self.polls)
        self.watcher = watch.Watcher(self.queue, self.resync.seen, self.cache)

    def work(self) -> None:
        """Resyncs if due, then makes passes until none is due."""
        if self.clock.passed >= self.next_resync:
            self.list()
        while True:
            if (key := self.queue.take()[0]) is not None:
                self.workers.process(key)
            elif (key := self.polls.queue.take()[0]) is not None:
                self.polls.process(key)
            elif (key := self.workers.policies.queue.take()[0]) is not None:
                self.workers.policies.process(key)
            else:
                return

    def list(self) -> None:
        try:
            self.resync.once()
            self.next_resync = self.clock.passed + RESYNC_SECONDS
        except ApiError as error:
            self.next_resync = self.clock.passed + min(error.retry_after or resync.AGAIN, RESYNC_SECONDS)

    def observe(self, type_: str, body: Document) -> None:
        """Delivers one watch event."""
        resource = next(
            (each for each in watch.WATCHED if (_group(body), _plural(body)) == (each.group, each.plural)), None
        )
        if resource is None or (resource not in paths.OURS.values() and not matches(body, paths.LABEL)):
            return
        self.watcher.event(resource.name, type_, body)

    def last_retry(self) -> float:
        """When the last pass is due that is made again because it failed; 0 if none is."""
        queue = self.queue
        return max((queue._due.get(key, 0.0) for key in queue._failures), default=0.0)

    def wakes(self) -> float:
        """The time of its next pass, poll or resync."""
        taken = [each.take() for each in (self.queue, self.polls.queue, self.workers.policies.queue)]
        assert all(key is None for key, _ in taken)
        return min(self.clock.passed + min(seconds for _, seconds in taken), self.next_resync)


def _group(body: Document) -> str:
    return str(body["apiVersion"]).rpartition("/")[0]


def _plural(body: Document) -> str:
    return f"{body['kind'].lower()}s"


class Harness:
    """A namespace with one run, its operator, and the actors that simulate the rest of the cluster.

    Args:
        kubeconfig: Path of the API server's kubeconfig.
        namespace: Namespace to create.
        spec: Spec of the run; `name` is the run's name, `world` by default.
    """

    def __init__(self, kubeconfig: str, namespace: str, **spec: Any) -> None:
        self.api = _connection(kubeconfig)
        self.namespace, self.clock = namespace, Clock()
        self.name = str(spec.get("name", "world"))
        self.turn = 0
        self.policies = PolicyPods()
        self.recorder = Recorder(self.api, self.clock.now)
        self.faulty = FaultyApi(self.recorder, no_fault, lambda: (self.turn, self.policies.changes))
        self.actors = RecordedApi(self.recorder)
        self.chats: Document | None = None
        """What an agent reports of its chats."""
        self.scenario = cluster_actors.Scenario()
        self.deaf_until, self.late = 0.0, DROP
        """Time until which the operator receives no events, and what becomes of them: DROP, or a list of them."""
        self.violations: list[str] = []
        """Broken invariants and unexpected errors of the operator."""
        self.recorder.listeners += [self._observe, self._check]
        self._prepare(spec)
        self.operator = self._start()

    def _prepare(self, spec: Mapping[str, Any]) -> None:
        place = {"namespace": self.namespace}
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}
        self.api.call("POST", "/api/v1/namespaces", body=body)
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", **place}}
        self.api.call("POST", f"/api/v1/namespaces/{self.namespace}/serviceaccounts", body=account)
        self.operator: OperatorProcess | None = None
        self.create(manifest(**{"store": STORE, "checkTools": True, **spec}))

    def create(self, body: Document) -> None:
        body["metadata"]["namespace"] = self.namespace
        self.recorder.call("POST", paths.OURS[body["kind"]].path(self.namespace), body=body)

    def _start(self) -> OperatorProcess:
        return OperatorProcess(self.faulty, self.namespace, self.clock, self.request)

    # -- running

    def run_to_the_end(self) -> None:
        """Runs until the run is finished or deleted with everything it owned, and nothing is left to do."""
        self.until(lambda: self.finished or not self.run)
        self.rest()

    def rest(self) -> None:
        """Runs until two consecutive resyncs change nothing, with every failed pass made again."""
        quiet = 0
        for _ in range(ROUNDS):
            quiet = 0 if self.round() else quiet + 1
            if quiet > 2 and not self.operator.last_retry():
                return
            if quiet:
                self.clock.passed = max(self.operator.next_resync, self.operator.last_retry())
        raise AssertionError(f"did not settle: {self.conditions()}")

    def until(self, happens: Callable[[], Any]) -> None:
        for _ in range(ROUNDS):
            if happens():
                return
            if not self.round():
                self.clock.passed = max(self.operator.wakes(), self.clock.passed)
        raise AssertionError(f"did not happen; {self.conditions()}")

    def round(self) -> bool:
        """One turn each for the operator and the actors. Returns whether anything changed."""
        before = self.recorder.writes
        self.turn += 1
        self._deliver()
        with self._surroundings():
            self.work()
        self.recorder.settle()
        moved = cluster_actors.advance(self.actors, self.namespace, self.scenario)
        moved += cluster_controllers.advance(self.actors, self.namespace, self.scenario)
        assert not self.violations, self.violations
        return bool(moved) or self.recorder.writes > before

    def work(self) -> None:
        """The operator's turn. An operator that dies is replaced at once."""
        try:
            self.operator.work()
        except Death:
            self.operator = self._start()

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """Replaces the pods that serve a policy, and the log of unexpected errors."""
        with (
            mock.patch.object(adapters, "requester", return_value=self.policies.answer),
            mock.patch.object(main.log, "exception", self._unexpected),
        ):
            yield

    def _unexpected(self, message: str, *values: Any) -> None:
        self.violations.append(f"{message % values}: {traceback.format_exc()}")

    def request(self, url: str, seconds: float) -> Document | None:
        """A pod's response to an HTTP request of the operator."""
        if url.endswith("/progress") and "-predictor." in url:
            return self.chats
        if url.endswith("/progress"):
            job = url.removeprefix("http://").partition("-trainer-0-0.")[0]
            running = phase(self.job(plain(job)) or {}) == "Running"
            return {"step": 7, "total": 10, "metrics": {"reward": 0.5}} if running else None
        answer = self.policies.answer(url, None)
        return json.loads(answer.body) if answer.status == 200 else None

    # -- observing

    def _observe(self, type_: str, body: Document) -> None:
        if self.operator is None:
            return
        if self.clock.passed >= self.deaf_until:
            self.operator.observe(type_, body)
        elif self.late is not DROP:
            self.late.append((type_, body))

    def _deliver(self) -> None:
        """Delivers the events that are late, once the operator receives events again."""
        if self.clock.passed >= self.deaf_until and self.late is not DROP:
            late, self.late = self.late, DROP
            for each in late:
                self.operator.observe(*each)

    def _check(self, type_: str, body: Document) -> None:
        """A stage never has two live attempts."""
        if type_ != "ADDED" or (body["kind"], _group(body)) != ("Job", paths.VOLCANO_JOBS.group):
            return
        owner = _stage_of(body)
        for path, each in self.recorder.of(paths.VOLCANO_JOBS):
            if each is not body and _stage_of(each) == owner and phase(each) not in OVER:
                self.recorder.refresh(path)  # the collector may have removed it
        jobs = [each for _, each in self.recorder.of(paths.VOLCANO_JOBS) if _stage_of(each) == owner]
        live = [each["metadata"]["name"] for each in jobs if phase(each) not in OVER]
        if len(live) > 1:
            self.violations.append(f"{owner} has two live jobs: {live}")

    @property
    def run(self) -> Document:
        return self.get("GoGRun", self.name)

    def get(self, kind: str, name: str) -> Document:
        """The object; {} if it does not exist."""
        return self.recorder.objects.get(paths.OURS[kind].path(self.namespace, name), {})

    def job(self, name: str) -> Document | None:
        """The Volcano Job of a plain name."""
        jobs = (body for _, body in self.recorder.of(paths.VOLCANO_JOBS))
        return next((body for body in jobs if plain(body["metadata"]["name"]) == name), None)

    def job_path(self, name: str) -> str:
        """Path of the Volcano Job of a plain name."""
        job = self.job(name)
        assert job is not None, name
        return paths.VOLCANO_JOBS.path(self.namespace, job["metadata"]["name"])

    @property
    def finished(self) -> str:
        """Complete or Failed, once the run is finished; empty before."""
        return next((each for each in ("Complete", "Failed") if condition(self.run, each, "True")), "")

    def conditions(self) -> list[str]:
        """Every condition of every custom resource, as text."""
        return [
            " ".join((each["metadata"]["name"], one["type"], one["status"], one["reason"], one["message"]))
            for kind in KINDS
            for _, each in self.recorder.of(paths.OURS[kind])
            for one in each.get("status", {}).get("conditions") or ()
        ]

    def state(self) -> dict[str, Any]:
        """The part of the final state that must not depend on faults: essences by resource and name."""
        found: dict[str, Any] = {}
        for path, body in self.recorder.objects.items():
            resource = paths.resource_of(path)
            if resource is None or resource in (paths.EVENTS, paths.PODS, paths.LEASES):
                continue
            found[f"{resource.plural}.{resource.group}/{plain(body['metadata']['name'])}"] = essence(body)
        return found

    def events(self) -> Counter[str]:
        rows = [each for _, each in self.recorder.of(paths.EVENTS)]
        return Counter(f"{each['involvedObject']['name']} {each['reason']}: {each['message']}" for each in rows)

    # -- interference by other users of the cluster

    def edit(self, path: str, patch: Document) -> None:
        self.recorder.call("PATCH", path, body=patch, content=MERGE)

    def remove(self, path: str) -> None:
        self.recorder.call("DELETE", path)


VOLATILE = (
    *("startTime", "completionTime", "attemptTime", "runningTime", "retryTime"),
    *("restarts", "progress", "summary", "pods"),
)
"""Status fields that depend on the times of passes."""


def essence(body: Document) -> Any:
    """The part of an object's final state that must not depend on faults."""
    status = body.get("status", {})
    if body["apiVersion"].startswith("gog.dev"):
        conditions = [
            (each["type"], each["status"], each["reason"], each["message"]) for each in status.get("conditions") or ()
        ]
        rest = {key: value for key, value in status.items() if key not in (*VOLATILE, "conditions")}
        if "jobRef" in rest:
            rest["jobRef"] = plain(rest["jobRef"]["name"])
        if "toolCheck" in rest:
            rest["toolCheck"] = rest["toolCheck"].get("number")
        return sorted(conditions), rest, body["spec"]
    if body["kind"] == "Job" and body["apiVersion"].startswith("batch.volcano"):
        return phase(body)
    if body["kind"] == "Job":
        return body["metadata"]["annotations"].get("gog.dev/result")
    return None


def _stage_of(job: Document) -> str:
    return plain(str(job["metadata"]["name"])).rpartition("-a")[0]


def phase(job: Mapping[str, Any]) -> str:
    return str(job.get("status", {}).get("state", {}).get("phase") or "")


def condition(body: Mapping[str, Any], type_: str, status: str) -> Document | None:
    found = body.get("status", {}).get("conditions") or ()
    return next((each for each in found if (each["type"], each["status"]) == (type_, status)), None)


@functools.cache
def _connection(kubeconfig: str) -> Api:
    return kube.connect(4, kubeconfig)


logging.getLogger("gog_operator").setLevel(logging.CRITICAL)
