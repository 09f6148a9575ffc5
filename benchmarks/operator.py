"""Measures the operator on a real API server with thousands of objects, against the goals.

    python benchmarks/operator.py [--objects 5000] [--stages 500]

Starts an API server with tests/cluster (no node: nothing runs), fills a namespace, and starts `gog operator` twice: once
on objects that have no status yet, once on objects with nothing to do. Then it idles over a resync, and a whole run is
driven in another namespace to see how soon a parent's status follows its child's. `operator_load` measures it with stages
that run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import operator_load
import operator_parts
import support.kube as kit
from support import cluster_actors
from support.operator_builders import manifest

from gog_operator.cluster import kube, paths

HERE = Path(__file__).parent
GOALS = {"seconds": 15.0, "mebibytes": 150.0, "latency_seconds": 2.0, "idle_cpu_percent": 5.0, "writes": 0}
STORE = {"uri": "s3://bucket/world", "secretName": "s3"}
KINDS = {
    "CurateStage": "curate",
    "SFTStage": "sft",
    "StratifyStage": "stratify",
    "GRPOStage": "grpo",
    "EvaluateStage": "evaluate",
}
STAMP = "2026-03-14T09:26:53Z"


def objects(count: int) -> Iterator[list[dict[str, Any]]]:
    """Groups of objects, owner first: complete runs and suspended ones with their stages, and external endpoints."""
    for number in range(count * 6 // 60):
        yield run(f"done-{number}", done=True)
    for number in range(count * 24 // 600):
        yield run(f"held-{number}", done=False)
    for number in range(count * 16 // 100):
        body = {"role": "judge", "url": "http://judge.example.org/v1"}
        yield [
            {
                "apiVersion": "gog.dev/v1alpha1",
                "kind": "ToolServer",
                "metadata": {"name": f"judge-{number}"},
                "spec": body,
            }
        ]


def run(name: str, *, done: bool) -> list[dict[str, Any]]:
    found = [manifest("GoGRun", name, store=STORE, suspend=not done)]
    for kind, key in KINDS.items():
        body = manifest(kind, f"{name}-{key}", store=STORE, suspend=not done, run=name, stage=key)
        body["metadata"]["labels"] = {"gog.dev/run": name}
        found.append(body)
    for each in found if done else ():
        each["status"] = complete()
    return found


def complete() -> dict[str, Any]:
    words = {"reason": "Complete", "message": "", "observedGeneration": 1, "lastTransitionTime": STAMP}
    conditions = [{"type": "Complete", "status": "True", **words}, {"type": "Ready", "status": "True", **words}]
    return {"conditions": conditions, "observedGeneration": 1, "startTime": STAMP, "completionTime": STAMP}


def create(api: kube.KubeApi, namespace: str, group: list[dict[str, Any]]) -> None:
    owner: dict[str, Any] | None = None
    for body in group:
        resource = paths.OURS[body["kind"]]
        if owner is not None:
            body["metadata"]["ownerReferences"] = [owner]
        made = api.call("POST", resource.path(namespace), body=body)
        if "status" in body:
            path = resource.path(namespace, body["metadata"]["name"], "status")
            api.call("PATCH", path, body={"status": body["status"]}, content=kube.MERGE)
        owner = owner or {
            "apiVersion": "gog.dev/v1alpha1",
            "kind": body["kind"],
            "name": body["metadata"]["name"],
            "uid": made["metadata"]["uid"],
            "controller": True,
        }


@contextlib.contextmanager
def api_server() -> Iterator[kit.ApiServer]:
    generator = kit.api_server.__wrapped__()  # the fixture's own generator
    yield next(generator)
    generator.close()


def latencies(api: kube.KubeApi, namespace: str) -> list[float]:
    """Seconds from a job's end, or a server's readiness, to the status of the object that owns it."""
    body = manifest(store=STORE)
    api.call("POST", paths.OURS["GoGRun"].path(namespace), body=body)
    found: list[float] = []
    over = threading.Event()

    def reason(kind: str, name: str) -> str:
        status = api.call("GET", paths.OURS[kind].path(namespace, name)).get("status", {})
        return next((each["reason"] for each in status.get("conditions") or () if each["type"] == "Ready"), "")

    def follow(kind: str, name: str, before: str) -> None:
        begun = time.monotonic()
        while reason(kind, name) == before and not over.is_set():
            time.sleep(0.01)
        found.append(time.monotonic() - begun)

    deadline = time.monotonic() + 240
    with ThreadPoolExecutor(8) as followers:
        while reason("GoGRun", "world") != "Complete" and time.monotonic() < deadline:
            for moved in cluster_actors.advance(api, namespace):
                thing, name, *state = moved.split()
                if thing == "service" and state == ["Ready"]:
                    followers.submit(follow, "ToolServer", name, "Starting")
                if thing == "job" and state == ["Completed"]:
                    stage = re.sub(r"-\w{4}-a1$", "", name)
                    kind = next(kind for kind, key in KINDS.items() if stage.endswith(key))
                    followers.submit(follow, kind, stage, "Running")
            time.sleep(0.3)
        over.set()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--stages", type=int, default=500)
    given = parser.parse_args()
    count = given.objects
    with api_server() as server:
        api, full, live = kube.connect(8, str(server.kubeconfig)), server.namespace("full"), server.namespace("live")
        groups = list(objects(count))
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda group: create(api, full, group), groups))
        total = sum(map(len, groups))

        operator = operator_parts.Operator(server, [full, live])
        cold, cold_peak = operator.settled(), operator.peak()
        cold_writes = operator_parts.writes(operator.metrics())
        ended = operator.end()

        operator = operator_parts.Operator(server, [full, live])
        warm = operator.settled()
        warm_resync = operator.metrics()["gog_operator_resync_duration_seconds"]
        time.sleep(10)
        cpu, begun, before = operator.cpu(), time.monotonic(), operator_parts.writes(operator.metrics())
        time.sleep(70)
        seconds = time.monotonic() - begun
        idle = 100 * (operator.cpu() - cpu) / seconds
        idle_writes = operator_parts.writes(operator.metrics()) - before
        idle_peak = operator.peak()
        waits = sorted(latencies(api, live))
        peak = operator.peak()
        operator.end()

    result = {
        "objects": total,
        "first_start": {"seconds": round(cold, 1), "writes": cold_writes, "peak_mebibytes": round(cold_peak, 1)},
        "restart": {"seconds": round(warm, 1), "resync_seconds": round(warm_resync, 1)},
        "idle": {"cpu_percent": round(idle, 2), "writes": idle_writes, "peak_mebibytes": round(idle_peak, 1)},
        "latency": {
            "n": len(waits),
            "median_seconds": round(waits[len(waits) // 2], 2),
            "largest_seconds": round(waits[-1], 2),
        },
        "peak_mebibytes": round(peak, 1),
        "sigterm_seconds": round(ended, 1),
    }
    load = operator_load.measure(given.stages)
    result["load"] = load
    (HERE / "results").mkdir(exist_ok=True)
    goals = GOALS | {"load": operator_load.GOALS}
    (HERE / "results" / "operator.json").write_text(json.dumps({"goals": goals} | result, indent=1) + "\n")
    for name, values in result.items():
        print(f"{name:16} {values}")
    print(
        f"restart {warm:.1f} s (goal {GOALS['seconds']:.0f}), peak {peak:.0f} MiB (goal {GOALS['mebibytes']:.0f}), "
        f"largest latency {waits[-1]:.2f} s (goal {GOALS['latency_seconds']:.0f}), "
        f"idle {idle:.1f} % CPU and {idle_writes} writes (goals {GOALS['idle_cpu_percent']:.0f}, 0); "
        + operator_load.verdict(load)
    )


if __name__ == "__main__":
    main()
