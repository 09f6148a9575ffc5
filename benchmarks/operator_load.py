"""Measures an operator under load on a real API server: running stages whose figures change all the time, two replicas, and
a hostile tenant.

    python benchmarks/operator_load.py [--stages 500]          (python benchmarks/operator.py runs it, too)

Every running stage has a run, a Volcano Job, a pod's worth of progress over HTTP, three tools at URLs and a judge that KServe
serves. Volcano, KServe and the trainers are played: nothing runs on a node. Requests, latencies and memory are measured on
the operator's own process, whose only change is that names of pods resolve to one port of loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import operator_parts
import support.kube as kit
from support import cluster_actors
from support.cluster_actors import now as stamp
from support.operator_builders import manifest

from gog_operator import lease
from gog_operator.api import sequence
from gog_operator.api.objects import GoGRun
from gog_operator.build import children, inference, volcano
from gog_operator.build.platform import Platform
from gog_operator.cluster import documents, kube, paths
from gog_operator.cluster.kube import MERGE

GOALS = {"requests": 50.0, "p99_seconds": 2.0, "mebibytes": 250.0, "takeover_seconds": 15.0, "hostile_times": 2.0}
STORE = {"uri": "s3://bucket/world", "secretName": "s3"}
TOOLS = {role: {"url": "http://tool.example.org"} for role in ("grounding", "imageSearch", "textSearch")}
SKIPPED = ("curate", "sft", "stratify", "evaluate")
TEMPLATE = "template-run"
SETTLE, WINDOW, SAMPLES, OBJECTS_PER_MINUTE = 90.0, 130.0, 120, 1000

Document = dict[str, Any]


class Tenant:
    """A namespace with running stages.

    Args:
        api: Client of the administrator.
        namespace: The namespace.
        count: Number of running stages.
    """

    def __init__(self, api: kube.KubeApi, namespace: str, count: int) -> None:
        self.api, self.namespace = api, namespace
        self.runs = [f"run-{number}" for number in range(count)]
        self.job = self._template()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(self._create, self.runs))

    def path(self, resource: paths.Resource, name: str, part: str = "") -> str:
        return resource.path(self.namespace, name, part)

    def get(self, resource: paths.Resource, name: str) -> Document:
        return self.api.call("GET", self.path(resource, name))

    def status(self, resource: paths.Resource, name: str, status: Document) -> None:
        self.api.call("PATCH", self.path(resource, name, "status"), body={"status": status}, content=MERGE)

    def _template(self) -> str:
        """The Volcano Job of a run, as text, because TorchX takes long to compile one."""
        run = self._parse(TEMPLATE)
        stage = self._stage(run)
        return json.dumps(volcano.job(stage, Platform()) | {"status": None})

    def _parse(self, name: str, uid: str = "uid") -> GoGRun:
        spec = {"store": STORE, "data": {"uri": "s3://bucket/d"}, "stages": {"skip": list(SKIPPED)}, "endpoints": TOOLS}
        body = manifest("GoGRun", name, **spec)
        body["metadata"] |= {"uid": uid, "namespace": self.namespace}
        return GoGRun.model_validate(body)

    def _stage(self, run: GoGRun) -> Any:
        (step,) = sequence.steps(run)
        made = children.stage(run, step, {"sft": "sft/1", "stratify": "stratify/1"}, run.spec.store)
        return made.model_copy(update={"status": made.status.model_copy(update={"attempt": 1})})

    def _post(self, resource: paths.Resource, body: Document, status: Document | None = None) -> Document:
        body["metadata"]["namespace"] = self.namespace
        made = self.api.call("POST", resource.path(self.namespace), body=body)
        if status:
            self.status(resource, body["metadata"]["name"], status)
        return made

    def _create(self, name: str) -> None:
        run = self._parse(name)
        made = self._post(paths.OURS["GoGRun"], documents.created(run, self.namespace))
        run = self._parse(name, made["metadata"]["uid"])
        self._check(run)
        for each in children.tool_servers(run, run.spec.store):
            self._server(each)
        self._running(run)

    def _check(self, run: GoGRun) -> None:
        """The look at the store, which found the checkpoints of the stages before."""
        found = {"checkpoints": {key: {"step": 1, "complete": True} for key in SKIPPED}}
        container = {"name": "move", "image": cluster_actors.IMAGE}
        head = {
            "name": f"{run.name}-check",
            "labels": {"app.kubernetes.io/name": "gog"},
            "annotations": {"gog.dev/result": json.dumps(found)},
            "ownerReferences": [reference(run.kind, run.name, run.metadata.uid)],
        }
        template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
        body = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": head,
            "spec": {"suspend": True, "template": template},
        }
        self._post(paths.JOBS, body)

    def _server(self, server: Any) -> None:
        made = self._post(paths.OURS["ToolServer"], documents.created(server, self.namespace))
        if server.spec.url:
            return
        owned = server.model_copy(
            update={"metadata": server.metadata.model_copy(update={"uid": made["metadata"]["uid"]})}
        )
        body = inference.service(owned, Platform(), None)
        self._post(paths.INFERENCE_SERVICES, body, cluster_actors._service_status(server.name, self.namespace, True))
        cluster_actors._deploy(self.api, self.namespace, self.get(paths.INFERENCE_SERVICES, server.name))
        self.available(server.name, True)

    def available(self, server: str, ready: bool) -> None:
        """Sets the availability of a server, as Kubernetes and KServe do."""
        counts = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": int(ready), "availableReplicas": int(ready)}
        self.status(paths.DEPLOYMENTS, f"{server}-predictor", {"observedGeneration": 1, **counts})

    def _running(self, run: GoGRun) -> None:
        stage = self._stage(run)
        known = {
            "attempt": 1,
            "observedAttempt": 1,
            "attemptTime": stamp(),
            "startTime": stamp(),
            "runningTime": stamp(),
        }
        made = self._post(paths.OURS[stage.kind], documents.created(stage, self.namespace), known)
        job = json.loads(self.job.replace(TEMPLATE, run.name))
        job["metadata"]["ownerReferences"] = [reference(stage.kind, stage.name, made["metadata"]["uid"])]
        self._post(paths.VOLCANO_JOBS, job, {"state": {"phase": "Running"}})


def reference(kind: str, name: str, uid: str) -> Document:
    return {"apiVersion": "gog.dev/v1alpha1", "kind": kind, "name": name, "uid": uid, "controller": True}


def ready(body: Document) -> tuple[str, str]:
    """Reason and message of an object's Ready condition."""
    found = [each for each in body.get("status", {}).get("conditions") or () if each["type"] == "Ready"]
    return (found[0]["reason"], found[0]["message"]) if found else ("", "")


def follow(tenant: Tenant, kind: str, name: str, change: Callable[[], None], patience: float = 60.0) -> float:
    """Seconds from a change of a child until the Ready condition of its parent follows; `patience` if it does not."""
    before = ready(tenant.get(paths.OURS[kind], name))
    change()
    begun = time.monotonic()
    while ready(tenant.get(paths.OURS[kind], name)) == before:
        if time.monotonic() - begun > patience:
            return patience
        time.sleep(0.02)
    return time.monotonic() - begun


def flips(tenant: Tenant, count: int, chance: random.Random) -> list[float]:
    """Latencies of tool servers that become unavailable and available again, a few at the same time."""

    def flip(run: str) -> list[float]:
        server = f"{run}-judge"
        states = (False, True)
        return [
            follow(tenant, "ToolServer", server, lambda each=each: tenant.available(server, each)) for each in states
        ]

    with ThreadPoolExecutor(3) as threads:
        return [each for both in threads.map(flip, chance.sample(tenant.runs, count)) for each in both]


def ends(tenant: Tenant, runs: list[str]) -> list[float]:
    """Latencies of stages whose jobs end."""

    def end(run: str) -> float:
        def completes() -> None:
            tenant.status(paths.VOLCANO_JOBS, f"{run}-grpo-a1", {"state": {"phase": "Completed"}})

        return follow(tenant, "GRPOStage", f"{run}-grpo", completes)

    with ThreadPoolExecutor(3) as threads:
        return list(threads.map(end, runs))


def p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


@contextlib.contextmanager
def trainers() -> Iterator[int]:
    """The port on which every trainer answers."""
    line = [sys.executable, str(operator_parts.SUPPORT / "support/trainers.py")]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def steady(operator: operator_parts.Operator) -> dict[str, float]:
    """Requests per second and processor time over more than two resyncs."""
    begun, before, cpu = time.monotonic(), operator.metrics(), operator.cpu()
    time.sleep(WINDOW)
    seconds = time.monotonic() - begun
    sent = operator_parts.requests(operator.metrics()) - operator_parts.requests(before)
    leases = 2 / lease.RENEW
    return {
        "requests_per_second": round(sent / seconds + leases, 1),
        "cpu_percent": round(100 * (operator.cpu() - cpu) / seconds),
    }


def takeover(
    tenant: Tenant, old: operator_parts.Operator, new: operator_parts.Operator, runs: list[str]
) -> dict[str, Any]:
    """`kill -9` of the leader while jobs end: seconds until its successor has written, and what was done twice."""
    with ThreadPoolExecutor(1) as threads:
        ending = threads.submit(ends, tenant, runs)
        time.sleep(1)
        begun = time.monotonic()
        old.kill()
        while not new.leads():
            time.sleep(0.05)
        acquired = time.monotonic() - begun
        waits = ending.result()
    volcano_jobs = list(kube.items(tenant.api, paths.VOLCANO_JOBS.path(tenant.namespace)))
    checks = [each["metadata"]["name"] for each in kube.items(tenant.api, paths.JOBS.path(tenant.namespace))]
    wanted = {f"{run}-grpo-a1-check" for run in runs}
    events = kube.items(tenant.api, paths.EVENTS.path(tenant.namespace))
    again = sum(each.get("count", 1) - 1 for each in events if each["involvedObject"]["kind"] == "GRPOStage")
    return {
        "seconds_to_lease": round(acquired, 1),
        "seconds": round(max(waits), 1),
        "doubled": len(volcano_jobs) - len(tenant.runs) + again,
        "missing": len(wanted - set(checks)),
    }


class Hostile:
    """Creates objects with odd names and references, a thousand a minute, until it is left."""

    def __init__(self, api: kube.KubeApi, namespace: str) -> None:
        self.api, self.namespace, self.made = api, namespace, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Hostile:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._stop.is_set():
            self._stop.wait(begun + self.made * 60 / OBJECTS_PER_MINUTE - time.monotonic())
            kind = ("GoGRun", "SFTStage", "ToolServer")[self.made % 3]
            with contextlib.suppress(kube.ApiError):
                self.api.call("POST", paths.OURS[kind].path(self.namespace), body=self._object(kind))
            self.made += 1

    def _object(self, kind: str) -> Document:
        spec = {"role": "judge"} if kind == "ToolServer" else {"store": STORE}
        body = manifest(kind, f"x{self.made}" + "-" * (self.made % 20) + "x", **spec)
        if kind == "ToolServer":
            body["spec"] = spec
        odd = ("../../good-1/gogruns/run-0", "run-0", "..", "x" * 63)[self.made % 4]
        body["metadata"]["ownerReferences"] = [reference("GoGRun", odd, "any")]
        body["metadata"]["labels"] = {"gog.dev/run": "run-0"}
        return body


def hostility(server: kit.ApiServer, api: kube.KubeApi, port: int) -> dict[str, Any]:
    """p99 of a tenant's latencies alone, and beside a hostile tenant."""
    good, bad = Tenant(api, server.namespace("good"), 40), Tenant(api, server.namespace("hostile"), 60)
    chance, namespaces = random.Random(1), [good.namespace, bad.namespace]

    def measure(watched: list[str], neighbour: contextlib.AbstractContextManager[Any]) -> list[float]:
        operator = operator_parts.Operator(server, watched, port)
        operator.settled()  # before a neighbour that leaves it no moment without work
        try:
            with neighbour:
                time.sleep(5)
                return flips(good, 40, chance) + flips(good, 40, chance)
        finally:
            operator.end()

    alone = measure([good.namespace], contextlib.nullcontext())
    tenant = Hostile(api, bad.namespace)
    beside = measure(namespaces, tenant)
    return {
        "alone_p99_seconds": round(p99(alone), 2),
        "beside_p99_seconds": round(p99(beside), 2),
        "times": round(p99(beside) / p99(alone), 2),
        "objects_created": tenant.made,
        "n": len(beside),
    }


def measure(stages: int) -> dict[str, Any]:
    """All figures."""
    chance = random.Random(0)
    settings = {"GOG_CONTROLLERS": "garbage-collector-controller,namespace-controller", "GOG_AUDIT": "", "GOGC": "400"}
    with kit.serving("load", **settings) as server, trainers() as port:
        api = kube.connect(8, str(server.kubeconfig))
        tenant = Tenant(api, server.namespace("active"), stages)
        leader = operator_parts.Operator(server, [tenant.namespace], port)
        leader.settled()
        time.sleep(SETTLE)
        found: dict[str, Any] = {"stages": stages, "steady": steady(leader)}
        ended = chance.sample(tenant.runs, min(SAMPLES, stages // 2))
        half = len(ended) // 2
        waits = flips(tenant, min(SAMPLES, stages), chance) + ends(tenant, ended[:half])
        found["latency"] = {
            "n": len(waits),
            "median_seconds": round(sorted(waits)[len(waits) // 2], 2),
            "p99_seconds": round(p99(waits), 2),
            "largest_seconds": round(max(waits), 2),
        }
        found["peak_mebibytes"] = round(leader.peak(), 1)
        standby = operator_parts.Operator(server, [tenant.namespace], port)
        time.sleep(10)
        found["takeover"] = takeover(tenant, leader, standby, ended[half:])
        standby.end()
        found["hostile"] = hostility(server, api, port)
    return found


def verdict(found: dict[str, Any]) -> str:
    """The figures against the goals, in one line."""
    return (
        f"{found['stages']} running stages: {found['steady']['requests_per_second']:.0f} requests/s (goal {GOALS['requests']:.0f}), "
        f"p99 {found['latency']['p99_seconds']:.2f} s (goal {GOALS['p99_seconds']:.0f}), "
        f"{found['peak_mebibytes']:.0f} MiB (goal {GOALS['mebibytes']:.0f}), "
        f"takeover {found['takeover']['seconds']:.0f} s (goal {GOALS['takeover_seconds']:.0f}), {found['takeover']['doubled']} doubled, "
        f"beside a hostile tenant {found['hostile']['times']:.1f} times (goal {GOALS['hostile_times']:.0f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, default=500)
    found = measure(parser.parse_args().stages)
    for name, values in found.items():
        print(f"{name:16} {values}")
    print(verdict(found))


if __name__ == "__main__":
    main()
