"""A complete run on a real cluster with containers, Volcano, KServe and S3, while the operator is killed repeatedly.

`make e2e` starts the cluster, loads the images and calls this. All tests share one run of the world: the chart is
installed, the manifest applied, the operator killed with SIGKILL at ten seeded times, and a trainer pod killed in the
middle of GRPO. Once the run is Complete, the tests inspect it from outside.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from support import audit, cluster_prometheus
from support.collector import Collector, Received
from support.installed_chart import NAMESPACE, RUN, SYSTEM
from support.job_names import plain
from support.kube import ROOT, ApiServer
from support.operator_builders import until
from support.real_prometheus import Span
from support.summary_shape import missing

from gog import spec, store
from gog_console.dashboards import boards, operator_board, tools_board, training_board
from gog_console.dashboards.prometheus import Prometheus

pytestmark = pytest.mark.cluster

MANIFEST = ROOT / "tests/e2e/world.yaml"
PATIENCE = 15 * 60
SCRAPE_SECONDS = 3
KILLS = 10


class Run:
    """The run as kubectl shows it."""

    def __init__(self, cluster: ApiServer) -> None:
        self.cluster = cluster
        self.began = self.ended = time.time()

    def objects(self, kind: str) -> list[dict[str, Any]]:
        return json.loads(self.cluster.kubectl("get", kind, "-n", NAMESPACE, "-o", "json"))["items"]

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads(self.cluster.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json"))

    def holds(self, type_: str) -> bool:
        conditions = self.get("gogrun", "world").get("status", {}).get("conditions", [])
        return any(each["type"] == type_ and each["status"] == "True" for each in conditions)

    def step(self) -> int:
        for stage in self.objects("grpostages"):
            return int(((stage.get("status") or {}).get("progress") or {}).get("step") or 0)
        return 0


def kill_operator(cluster: ApiServer) -> bool:
    """Kills the operator's process with SIGKILL from the node. Also deletes the pod, because a new pod starts at once,
    whereas the same pod's container would be restarted with a backoff of up to five minutes."""
    found = subprocess.run(["pgrep", "-f", "gog operator"], capture_output=True, text=True, check=False).stdout.split()
    ours = [pid for pid in found if "kubepods" in (Path("/proc") / pid / "cgroup").read_text()]
    for pid in ours:
        os.kill(int(pid), signal.SIGKILL)
    selector = "app.kubernetes.io/name=gog-operator"
    cluster.kubectl("delete", "pod", "-n", SYSTEM, "-l", selector, "--grace-period=0", "--force", "--wait=false")
    return bool(ours)


@pytest.fixture(scope="module")
def prometheus(installed: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes the targets of the chart's PodMonitors: two ports of a run's pods, one of the operator's."""
    folder = tmp_path_factory.mktemp("prometheus")
    with cluster_prometheus.scraping(installed, SYSTEM, folder, targets=3, seconds=SCRAPE_SECONDS) as source:
        yield source


@pytest.fixture(scope="module")
def collector(cluster: ApiServer) -> Iterator[Collector]:
    """Receives the run's traces, at the bridge's address, which pods can reach."""
    address = urlsplit(yaml.safe_load(MANIFEST.read_text())["spec"]["traces"]["endpoint"])
    with Collector(address=(address.hostname, address.port)) as collector:
        yield collector


@pytest.fixture(scope="module")
def run(installed: ApiServer, prometheus: Prometheus, collector: Collector) -> Run:
    """The complete run, whose policy is served, and during which the operator was killed ten times and a trainer pod once."""
    run, moments = Run(installed), random.Random(7)
    started = time.monotonic()
    installed.kubectl("apply", "-n", NAMESPACE, "-f", str(MANIFEST))
    killed, pod_killed, due = 0, False, started + 10
    while not (run.holds("Complete") and run.holds("Served")):
        assert not run.holds("Failed"), installed.kubectl("describe", "gogrun", "world", "-n", NAMESPACE)
        assert time.monotonic() - started < PATIENCE, installed.kubectl("get", "gog,pods", "-n", NAMESPACE)
        if killed < KILLS and time.monotonic() >= due:
            killed += kill_operator(installed)
            due = time.monotonic() + moments.uniform(20, 50)
        if not pod_killed and run.step() >= 7:
            pods = [each["metadata"]["name"] for each in run.objects("pods")]
            (victim,) = [name for name in pods if plain(name).startswith("world-grpo-a1-trainer-1")]
            installed.kubectl("delete", "pod", victim, "-n", NAMESPACE, "--grace-period=0", "--force")
            pod_killed = True
        time.sleep(1)
    run.ended = time.time()
    print(f"from apply to Complete: {time.monotonic() - started:.0f} s; the operator was killed {killed} times")
    assert killed == KILLS
    assert pod_killed
    return run


@pytest.fixture(scope="module")
def kept(run: Run) -> store.Store:
    """The run's store, read with the run's own credentials."""
    for line in (RUN / "s3.env").read_text().split():
        os.environ.setdefault(*line.split("=", 1))
    return store.open_store(spec.StoreSpec.model_validate(yaml.safe_load(MANIFEST.read_text())["spec"]["store"]))


@pytest.fixture(scope="module")
def summary(kept: store.Store) -> dict[str, Any]:
    return json.loads(kept.get_object("report/summary.json"))


def test_every_stage_is_complete_and_only_the_killed_one_was_tried_twice(summary):
    assert {stage["name"]: stage["condition"] for stage in summary["stages"]} == dict.fromkeys(
        ("curate", "sft", "stratify", "grpo", "evaluate"), "Complete"
    )
    assert [stage["attempts"] for stage in summary["stages"]] == [1, 1, 1, 2, 1]


def test_the_report_in_the_store_has_the_shape_of_a_local_one(summary):
    assert missing(summary) == {}


def test_the_killed_stage_resumed_from_its_last_commit_without_gap_or_repeat(summary):
    assert [line["step"] for line in summary["grpo"]] == list(range(1, 41))


def test_the_page_stands_alone(kept):
    page = kept.get_object("report/index.html").decode()
    assert "Content-Security-Policy" in page
    assert page.count("data:image/png;base64") >= 20


def test_checkpoints_are_read_back_from_the_store_verified(kept, tmp_path):
    for stage in ("curate", "sft", "stratify", "grpo", "evaluate"):
        newest = kept.latest(stage)
        assert newest is not None
        kept.fetch(newest, tmp_path / stage)


def test_the_optimizer_of_two_pods_is_two_shards_of_one_checkpoint(kept):
    shards = [name for name in kept.latest("grpo").files if name.startswith("optimizer-")]
    assert sorted(shards) == ["optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors"]


def test_the_last_checkpoints_were_promoted_and_older_ones_retired(kept):
    promoted = yaml.safe_load(MANIFEST.read_text())["spec"]["promoteTo"]
    other = store.open_store(spec.StoreSpec.model_validate(promoted))
    assert other.latest("grpo").step == 40
    assert len(kept.steps("grpo")) <= 3


def test_no_attempt_had_two_jobs_and_nothing_is_left_running(run):
    jobs = [plain(each["metadata"]["name"]) for each in run.objects("jobs.batch.volcano.sh")]
    assert sorted(jobs) == sorted(
        ["world-curate-a1", "world-sft-a1", "world-stratify-a1", "world-grpo-a1", "world-grpo-a2", "world-evaluate-a1"]
    )

    def only_the_policy_runs() -> bool:
        phases = {each["metadata"]["name"]: each["status"]["phase"] for each in run.objects("pods")}
        running = [name for name, phase in phases.items() if phase in ("Running", "Pending")]
        return bool(running) and all(name.startswith("world-policy") for name in running)

    until(only_the_policy_runs, 90)


def test_the_trained_policy_is_served(run):
    endpoint = run.get("toolserver", "world-policy")
    assert endpoint["status"]["version"] == "grpo/40"
    assert [each["spec"]["role"] for each in run.objects("toolservers.gog.dev")] == ["policy"]


def test_every_pod_passed_the_restricted_level(run):
    """The namespaces enforce the level. A pod that violates it is rejected, which an event reports."""
    warnings = [each["message"] for each in run.objects("events") if "violates PodSecurity" in each.get("message", "")]
    assert warnings == []


def operators_own(event: dict[str, Any]) -> bool:
    return "gog-operator" in (event.get("reportingComponent"), event.get("source", {}).get("component"))


def test_events_report_an_interruption_and_the_inputs_of_a_stage(run):
    messages = [each["message"] for each in run.objects("events") if operators_own(each)]
    resumed = re.compile(
        r"world-grpo: attempt 1 was interrupted: .*; attempt 2 resumes from grpo/\d+( and its journal)?"
    )
    assert any(resumed.fullmatch(message) for message in messages)
    sft, stratify = (run.get(f"{each}stage", f"world-{each}")["status"]["checkpoint"] for each in ("sft", "stratify"))
    assert run.get("grpostage", "world-grpo")["spec"]["inputs"] == {"sft": sft, "stratify": stratify}
    assert f"grpo starts from {sft} and {stratify}" in messages


# ---- metrics in Prometheus


@pytest.fixture(scope="module")
def span(run: Run, prometheus: Prometheus) -> Span:
    return Span(prometheus, run.began, run.ended, SCRAPE_SECONDS)


@pytest.mark.parametrize("board", boards.ALL, ids=lambda board: board.name)
def test_every_panel_shows_something_of_a_real_run(span, board):
    namespace = SYSTEM if board is operator_board.BOARD else NAMESPACE
    assert set(span.empty(board, namespace=namespace, run="world").values()) <= {
        tools_board.NO_AGENT,
        tools_board.NO_CREDIT,
        tools_board.NO_DECISION,
        training_board.ON_A_GPU,
    }


@pytest.mark.parametrize("tool", ["grounding", "imageSearch", "textSearch"])
def test_the_injected_failure_rate_is_read_from_the_panels_within_its_interval(span, tool):
    endpoint = yaml.safe_load(MANIFEST.read_text())["spec"]["endpoints"][tool]
    assert span.reads_back(tool, spec.FailureInjection.model_validate(endpoint["failures"]))


def test_of_a_stage_in_two_pods_only_the_first_is_scraped(span):
    pods = {each.labels["pod"] for each in span.source.curve('up{pod=~".*-trainer-.*"}', span.began, span.ended, 3)}
    assert {name.rpartition("-trainer-")[2] for name in pods} == {"0-0"}
    assert {name.split("-")[1] for name in pods} == {"curate", "sft", "stratify", "grpo", "evaluate"}


# ---- traces at the collector


@pytest.fixture(scope="module")
def spans(run: Run, collector: Collector) -> dict[str, Received]:
    return {each.id: each for each in collector.spans}


def test_spans_of_all_pods_and_store_jobs_form_one_tree(spans):
    assert len({each.trace for each in spans.values()}) == 1
    (top,) = [each for each in spans.values() if each.name == "run"]
    assert top["gog.outcome"] == "Complete" and not top.parent
    stages = [each for each in spans.values() if each.name == "stage"]
    assert {each.parent for each in stages} == {top.id}
    assert {(each["gog.stage"], each["gog.attempt"]) for each in stages if each["gog.outcome"] == "ended"} == {
        ("curate", 1), ("sft", 1), ("stratify", 1), ("grpo", 2), ("evaluate", 1)
    }  # fmt: skip
    below = [each for each in spans.values() if each is not top and each.parent in spans]
    assert all(spans[each.parent].started <= each.started <= each.ended <= spans[each.parent].ended for each in below)
    orphans = [each for each in spans.values() if each is not top and each.parent not in spans]
    assert {(each.name, each["gog.stage"], each["gog.attempt"]) for each in orphans} <= {("episode", "grpo", 1)}


def test_both_pods_of_a_stage_export_spans_of_their_episodes(spans):
    played = [each for each in spans.values() if each.name == "episode" and each["gog.stage"] == "grpo"]
    assert {each["gog.rank"] for each in played if each["gog.attempt"] == 2} == {0, 1}


def alone(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """A standalone stage in the run's store, which holds the dataset."""
    given = yaml.safe_load(MANIFEST.read_text())["spec"]
    kept = {key: given[key] for key in ("model", "store")}
    body = {**kept, "data": {"uri": given["store"]["uri"]}, **spec}
    return {"apiVersion": "gog.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": body}  # fmt: skip


def test_a_standalone_stage_is_suspended_resumes_and_is_deleted_after_its_ttl(run):
    body = alone(
        "SFTStage", "alone", run="alone", stage="alone", inputs={"curate": "curate"}, ttlSecondsAfterFinished=0
    )
    run.cluster.apply(body)

    def reason() -> str:
        conditions = run.get("sftstage", "alone").get("status", {}).get("conditions", [])
        return next((each["reason"] for each in conditions if each["type"] == "Ready"), "")

    until(lambda: reason() == "Running", 120)
    run.cluster.kubectl(
        "patch", "sftstage", "alone", "-n", NAMESPACE, "--type=merge", "-p", '{"spec":{"suspend":true}}'
    )
    until(lambda: reason() == "Suspended", 120)
    run.cluster.kubectl(
        "patch", "sftstage", "alone", "-n", NAMESPACE, "--type=merge", "-p", '{"spec":{"suspend":false}}'
    )
    until(lambda: "alone" not in [each["metadata"]["name"] for each in run.objects("sftstages")], 300)


def test_a_deleted_run_leaves_its_results_and_nothing_else(run, kept):
    """Deletes the run, so the tests of the run precede it."""
    run.cluster.kubectl("delete", "gogrun", "world", "-n", NAMESPACE, "--cascade=foreground", "--timeout=120s")
    until(lambda: not run.objects("pods"), 120)
    for kind in ("jobs.batch.volcano.sh", "jobs.batch", "inferenceservices", "toolservers.gog.dev", "configmaps"):
        left = [each["metadata"]["name"] for each in run.objects(kind)]
        assert [name for name in left if not name.startswith("kube-root-ca")] == []
    assert kept.latest("grpo").step == 40


UNLOGGED = {
    (
        "serving.kserve.io",
        "inferenceservices",
        "create",
    ): "required by the server when an apply creates an object; logged as patch",
    ("", "services", "create"): "as above",
    ("", "events", "get"): "a repeated event; test_remote.py",
    ("", "events", "patch"): "a repeated event; test_remote.py",
    ("", "configmaps", "delete"): "a store job that is replaced; test_operator_faults.py",
    ("batch", "jobs", "delete"): "a store job that is replaced; test_operator_faults.py",
    ("batch.volcano.sh", "jobs", "delete"): "ended jobs after jobs.ttlSeconds; test_job_ttl.py",
}
"""Permissions that this run need not use, and why the operator has them."""


def test_the_operator_has_exactly_the_permissions_that_it_uses(run):
    """Runs last. Our own kinds count as one resource, because the operator treats them alike."""
    asked = audit.requests(run.cluster.audit_log, f"system:serviceaccount:{SYSTEM}:gog-operator")
    roles = [*json.loads(run.cluster.kubectl("get", "roles", "-A", "-o", "json"))["items"]]
    roles += json.loads(run.cluster.kubectl("get", "clusterroles", "-o", "json"))["items"]
    ours = [each for each in roles if each["metadata"]["name"].startswith("gog-operator")]
    assert audit.denied(asked) == set()
    allowed = {right for right in audit.allowed(ours) if not right[1].endswith("/finalizers")} - UNLOGGED.keys()
    alike = {("gog.dev", verb) for group, _, verb in audit.used(asked) if group == "gog.dev"}
    unused = {right for right in allowed - audit.used(asked) if (right[0], right[2]) not in alike}
    assert unused == set()
