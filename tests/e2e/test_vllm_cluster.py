"""A real vLLM under KServe: rollouts of a GRPO stage go through it, and it serves the trained policy afterwards.

`make e2e-vllm` builds what is missing, starts the cluster, loads the images and calls this. All tests share one run.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
import yaml
from support.installed_chart import NAMESPACE, RUN, install
from support.kube import ROOT, ApiServer
from support.operator_builders import until

from gog import spec, store
from gog_recipes.world import wide_tiny

pytestmark = [pytest.mark.cluster, pytest.mark.vllm]

MANIFEST = ROOT / "tests/e2e/vllm.yaml"
PATIENCE = 90 * 60
SELECTOR = "app=isvc.wide-policy-predictor"


@pytest.fixture(scope="module")
def served_by_vllm(cluster: ApiServer) -> ApiServer:
    """The cluster with the chart and the image of vLLM, and the base model in a bucket."""
    install(cluster, "operator", "trainer", "tools", "vllm", minutes=5)
    wide_tiny.write(RUN / "s3/gog/models/wide")
    return cluster


def get(cluster: ApiServer, kind: str, name: str) -> dict[str, Any]:
    return json.loads(cluster.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json"))


def holds(cluster: ApiServer, kind: str, name: str, type_: str) -> bool:
    conditions = get(cluster, kind, name).get("status", {}).get("conditions", [])
    return any(each["type"] == type_ and each["status"] == "True" for each in conditions)


def pods(cluster: ApiServer) -> list[str]:
    found = json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", SELECTOR, "-o", "json"))["items"]
    return [each["metadata"]["name"] for each in found if not each["metadata"].get("deletionTimestamp")]


def ask(cluster: ApiServer, pod: str, path: str, port: int = 8080) -> str:
    """What a pod answers, by way of the API server."""
    return cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{port}/proxy{path}")


def served(cluster: ApiServer, pod: str) -> list[str]:
    return [each["id"] for each in json.loads(ask(cluster, pod, "/v1/models"))["data"]]


@pytest.fixture(scope="module")
def run(served_by_vllm: ApiServer) -> ApiServer:
    """The run, complete, with its policy served."""
    cluster = served_by_vllm
    started = time.monotonic()
    cluster.kubectl("apply", "-n", NAMESPACE, "-f", str(MANIFEST))
    while not (holds(cluster, "gogrun", "wide", "Complete") and holds(cluster, "gogrun", "wide", "Served")):
        assert not holds(cluster, "gogrun", "wide", "Failed"), cluster.kubectl(
            "describe", "gogrun", "wide", "-n", NAMESPACE
        )
        assert time.monotonic() - started < PATIENCE, cluster.kubectl("get", "gog,pods", "-n", NAMESPACE)
        time.sleep(2)
    print(f"from apply to Served: {time.monotonic() - started:.0f} s")
    return cluster


@pytest.fixture(scope="module")
def lines(run: ApiServer) -> list[dict[str, Any]]:
    """The metrics of each step of GRPO, from the store."""
    for line in (RUN / "s3.env").read_text().split():
        os.environ.setdefault(*line.split("=", 1))
    kept = store.open_store(spec.StoreSpec.model_validate(yaml.safe_load(MANIFEST.read_text())["spec"]["store"]))
    newest = kept.latest("grpo")
    assert newest is not None
    return [json.loads(line) for line in kept.open(newest, "metrics.jsonl").read_text().splitlines()]


def test_every_step_sampled_through_vllm_what_the_trainer_computes(lines):
    assert [line["step"] for line in lines] == [1, 2, 3]
    learned = [line for line in lines if line["learned"]]
    assert learned, "no group had a signal, so nothing was compared"
    assert all(line["generated_tokens"] > 0 for line in lines)
    assert all(line["logp_diff_mean"] < 1e-3 for line in learned)


def test_the_pod_generated_the_tokens_that_the_stage_trained_on(run, lines):
    (pod,) = pods(run)
    counted = [
        each for each in ask(run, pod, "/metrics").splitlines() if each.startswith("vllm:generation_tokens_total")
    ]
    assert sum(float(each.rpartition(" ")[2]) for each in counted) >= sum(line["generated_tokens"] for line in lines)


def test_versions_were_uploaded_to_the_pod_and_the_checkpoint_fetched_from_the_store(run):
    (pod,) = pods(run)
    arrived = json.loads(ask(run, pod, "/adapters", 8081))["adapters"]
    assert arrived["grpo-3"] == "/adapters/grpo-3"


def test_the_trained_policy_is_served_by_its_name(run):
    (pod,) = pods(run)
    assert get(run, "toolserver", "wide-policy")["status"]["version"] == "grpo/3"
    assert "grpo-3" in served(run, pod)


def test_no_pod_violated_the_restricted_level(run):
    events = json.loads(run.kubectl("get", "events", "-n", NAMESPACE, "-o", "json"))["items"]
    assert [each["message"] for each in events if "violates PodSecurity" in each.get("message", "")] == []


def test_a_replaced_pod_is_not_ready_before_it_serves_the_version_again(run):
    """Replaces the pod, so the other tests precede it."""
    (old,) = pods(run)
    run.kubectl("delete", "pod", old, "-n", NAMESPACE, "--wait=false")

    def replaced() -> bool:
        found = [name for name in pods(run) if name != old]
        return bool(found) and holds(run, "pod", found[0], "Ready")

    until(replaced, 3600)
    (new,) = [name for name in pods(run) if name != old]
    assert "grpo-3" in served(run, new)
