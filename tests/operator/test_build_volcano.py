"""A stage's attempt as a Volcano Job: gang, retries, processes, and the replacement of names that TorchX generated."""

from __future__ import annotations

import json
from dataclasses import replace

import hypothesis
import hypothesis.strategies as some
import pytest
import support.operator_golden as golden
from torchx.runner import Runner
from torchx.schedulers import kubernetes_scheduler

from gog import spec as settings
from gog_operator.api import names
from gog_operator.build import quantities, volcano
from gog_operator.build.app import COMPONENT

LABEL = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
NAMES = some.from_regex(LABEL, fullmatch=True)


def container_of(job, task=0):
    (container,) = job["spec"]["tasks"][task]["template"]["spec"]["containers"]
    return container


def made(**spec):
    return volcano.job(golden.stage(**spec), golden.PLATFORM)


def variables(job, task=0):
    return {each["name"]: each.get("value") for each in container_of(job, task)["env"]}


def test_an_autoscaler_moves_no_trainer():
    (task,) = made(workers={"replicas": 1})["spec"]["tasks"]
    annotations = task["template"]["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"


@pytest.mark.parametrize(("workers", "requests", "limits"), [
    ({"gpus": 8}, {"cpu": "100m", "memory": "256Mi", "nvidia.com/gpu": "8"}, {"nvidia.com/gpu": "8"}),
    ({"gpus": 1, "cpu": 4, "memory": "32Gi"}, {"cpu": "4", "memory": "32Gi", "nvidia.com/gpu": "1"},
     {"cpu": "4", "memory": "32Gi", "nvidia.com/gpu": "1"}),
])  # fmt: skip
def test_a_pod_with_gpus_is_never_the_first_that_a_full_node_evicts(workers, requests, limits):
    assert container_of(made(workers=workers))["resources"] == {"requests": requests, "limits": limits}


def test_pods_start_and_end_together_and_volcano_retries_nothing():
    spec = made(workers={"replicas": 3})["spec"]
    assert spec["minAvailable"] == len(spec["tasks"]) == 3 and all(each["replicas"] == 1 for each in spec["tasks"])
    assert {each["event"]: each["action"] for each in spec["policies"]} == {
        "PodFailed": "TerminateJob",
        "PodEvicted": "TerminateJob",
    }
    assert spec["maxRetry"] == 1, "counts attempts; 0 would become 3"
    assert "ttlSecondsAfterFinished" not in spec


def test_attempts_have_distinct_names_and_pods_expose_progress_and_metrics():
    first, second = made(attempt=1), made(attempt=2)
    assert (first["metadata"]["name"], second["metadata"]["name"]) == ("world-grpo-a1", "world-grpo-a2")
    assert second["metadata"]["labels"]["gog.dev/attempt"] == "2"
    assert "--disable-network-policy=true" in first["spec"]["plugins"]["svc"]
    assert container_of(first)["ports"] == [{"name": "metrics", "containerPort": 9090, "protocol": "TCP"}]


def test_generated_names_of_torchx_are_replaced(monkeypatch):
    calls = []
    original = kubernetes_scheduler.make_unique
    monkeypatch.setattr(kubernetes_scheduler, "make_unique", lambda name: calls.append(original(name)) or calls[-1])
    text = json.dumps(made(workers={"replicas": 2}))
    assert calls and calls[0] not in text and "--rdzv_id=world-grpo-a1" in text
    assert variables(made())["TORCHX_INTERNAL_SESSION_ID"] == "gog"


def test_compiling_connects_to_no_cluster(monkeypatch):
    monkeypatch.setattr(kubernetes_scheduler.KubernetesScheduler, "_custom_objects_api", lambda self: 1 / 0)
    assert made()["kind"] == "Job"


def test_the_rendezvous_of_several_pods_is_the_host_of_the_first():
    job = made(workers={"replicas": 2})
    assert "--rdzv_endpoint=$TORCHX_RANK0_HOST:29500" in container_of(job, 0)["command"]
    assert "--rdzv_endpoint=$VC_TRAINER_0_HOSTS:29500" in container_of(job, 1)["command"]
    assert [each["name"] for each in job["spec"]["tasks"]] == ["trainer-0", "trainer-1"]
    assert variables(job)["GLOO_SOCKET_IFNAME"] == "eth0" and "GLOO_SOCKET_IFNAME" not in variables(made())


def test_torchx_run_by_hand_has_the_same_commands():
    def scheduler(session_name, **_):
        return kubernetes_scheduler.KubernetesScheduler(session_name, client=object())

    line = [
        "--kind",
        "grpo",
        "--config",
        "/etc/gog/config.yaml",
        "--name",
        "world-grpo-a1",
        "--nodes",
        "2",
        "--processes",
        "4",
    ]
    options = {"queue": "default", "validate_spec": False}
    by_hand = Runner("hand", {"kubernetes": scheduler}).dryrun_component(COMPONENT, line, "kubernetes", options)
    resource = kubernetes_scheduler.sanitize_for_serialization(by_hand.request.resource)
    generated = resource["metadata"]["name"]
    job = made(workers={"replicas": 2, "processes": 4})
    for task in (0, 1):
        command = [each.replace(generated, "world-grpo-a1") for each in container_of(resource, task)["command"]]
        assert command == container_of(job, task)["command"]


@pytest.mark.parametrize(
    ("workers", "processes", "threads"),
    [
        ({}, 1, "1"),
        ({"gpus": 8}, 8, "1"),
        ({"gpus": 8, "cpu": "64"}, 8, "8"),
        ({"processes": 2, "cpu": "500m"}, 2, "1"),
        ({"gpus": 4, "processes": 1, "cpu": "7"}, 1, "7"),
    ],
)
def test_each_gpu_has_a_process_and_processes_share_the_cores(workers, processes, threads):
    job = made(workers=workers)
    assert volcano.processes(settings.WorkersSpec.model_validate(workers)) == processes
    assert (f"--nproc_per_node={processes}" in container_of(job)["command"]) is (processes > 1)
    assert variables(job)["OMP_NUM_THREADS"] == threads


def test_a_stage_waits_for_its_last_scrape_as_the_installation_sets_it():
    def waits(seconds: int) -> list[str]:
        job = volcano.job(golden.stage(), replace(golden.PLATFORM, linger_seconds=seconds))
        (container,) = job["spec"]["tasks"][0]["template"]["spec"]["containers"]
        return [each["value"] for each in container["env"] if each["name"] == "GOG_METRICS_LINGER"]

    assert (waits(45), waits(0)) == (["45"], [])


def test_quantities_are_requests_and_limits_unchanged():
    job = made(workers={"cpu": "1500m", "memory": "3Gi", "gpus": 1})
    amounts = {"cpu": "1500m", "memory": "3Gi", "nvidia.com/gpu": "1"}
    assert container_of(job)["resources"] == {"requests": amounts, "limits": amounts}
    assert "resources" not in container_of(made())


def test_shared_memory_is_mounted_with_gpus_or_if_the_spec_sets_it():
    def size(**workers):
        volumes = made(workers=workers)["spec"]["tasks"][0]["template"]["spec"]["volumes"]
        return next((each["emptyDir"]["sizeLimit"] for each in volumes if each["name"] == "shm"), None)

    assert (size(), size(gpus=1), size(gpus=1, sharedMemory="8Gi"), size(sharedMemory="2Gi")) == (
        None,
        "1Gi",
        "8Gi",
        "2Gi",
    )


def test_the_spec_hash_changes_with_the_spec_only():
    def mark(**spec):
        return made(**spec)["metadata"]["annotations"]["gog.dev/spec-hash"]

    assert mark() == mark() != mark(workers={"replicas": 2}) != mark(attempt=2)


@hypothesis.example("s" * 63, 9999, 1023)
@hypothesis.given(NAMES, some.integers(1, 9999), some.integers(0, 1023))
def test_every_name_below_a_stage_fits_into_a_label(stage, attempt, replica):
    job = names.job(stage, attempt)
    for name in (
        f"{job}-trainer-{replica}-0",
        names.store_job(job, "report"),
        names.store_job(stage, "check"),
        f"{job}-svc",
    ):
        assert len(name) <= 63
        assert not name.endswith("-") and name[0].isalpha()


@hypothesis.given(NAMES, NAMES)
def test_names_that_are_cut_remain_distinct(one, other):
    assert (names.job(one, 1) == names.job(other, 1)) is (one == other)
    assert (names.service(one) == names.service(other)) is (one == other)
    assert names.store_job(names.job(one, 1), "check") != names.store_job(names.job(one, 11), "check")


@hypothesis.example("e" * 63)
@hypothesis.given(NAMES)
def test_the_label_and_the_service_of_a_server_fit(endpoint):
    name = names.service(endpoint)
    assert len(f"isvc.{name}-predictor") <= 63 and len(f"{name}-pods") <= 63


def test_the_job_of_a_stage_with_a_long_name_stays_within_the_limits():
    job = volcano.job(golden.stage(name="s" * 63, attempt=100, workers={"replicas": 2}), golden.PLATFORM)
    name = job["metadata"]["name"]
    assert len(f"{name}-trainer-1-0") <= 63 and f"--rdzv_id={name}" in container_of(job)["command"]


@pytest.mark.parametrize(("one", "other"), [("1Gi", "1G"), ("2", "1500m"), ("0.5Gi", "500Mi"), ("1k", "999")])
def test_quantities_are_compared_by_value(one, other):
    assert quantities.larger(one, other) == quantities.larger(other, one) == one


def test_a_base_of_the_hub_is_fetched_with_the_token_of_its_secret():
    plain, gated = made(), made(model={"base": "hf://org/model", "secretName": "hub"})
    source = {"secretRef": {"name": "hub"}}
    assert source in container_of(gated)["envFrom"] and "envFrom" not in container_of(plain)


def test_a_dataset_of_the_hub_is_fetched_with_the_token_of_its_secret():
    gated = made(data={"uri": "hf://datasets/org/pool", "secretName": "hub"})
    assert container_of(gated)["envFrom"] == [{"secretRef": {"name": "hub"}}]


def test_a_stage_has_no_token_of_the_hub_where_all_sources_were_fetched_before():
    hub = {"model": {"base": "hf://org/model", "secretName": "hub"}}
    hub["data"] = {"uri": "hf://datasets/org/pool", "secretName": "hub"}
    volumes = {"hf://org/model": "pvc://models/model-1", "hf://datasets/org/pool": "pvc://models/data-1"}
    assert "envFrom" not in container_of(made(**hub, sources=volumes))
    volumes.pop("hf://datasets/org/pool")
    assert container_of(made(**hub, sources=volumes))["envFrom"] == [{"secretRef": {"name": "hub"}}]
