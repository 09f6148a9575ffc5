"""The sample policy of a cluster's administrator, on a real API server: what tenants may write, and where it holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.operator_builders import for_cluster, until

pytestmark = pytest.mark.apiserver

SAMPLES = Path(__file__).parents[2] / "manifests/samples"
PULLED = "registry.example.org/gog/gog-trainer:1"
SECRET = {"secretRef": {"name": "theirs"}}
ALLOWED: dict[str, dict[str, Any]] = {
    "the least run": {},
    "its own registry": {"images": {"trainer": PULLED, "tools": PULLED}},
    "its service account and Secrets": {
        "serviceAccountName": "gog-runs",
        "store": {"uri": "s3://b/p", "secretName": "gog-s3"},
        "endpoints": {"judge": {"secretName": "gog-judge"}},
        "pods": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "gog-a", "key": "a"}}}]}],
    },
    "two nodes of GPUs": {"stages": {"grpo": {"workers": {"replicas": 2, "gpus": 8}}}},
    "a claim": {"pods": [{"volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "m"}}]}]},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an image of another registry": ({"images": {"tools": "docker.example.com/tools"}}, "images come from"),
    "an image volume of another registry": (
        {"pods": [{"volumes": [{"name": "m", "image": {"reference": "docker.example.com/m"}}]}]},
        "images come from",
    ),
    "another service account": ({"serviceAccountName": "default"}, "service account of runs is gog-runs"),
    "the Secret of another for the store": (
        {"store": {"uri": "s3://b/p", "secretName": "theirs"}},
        "Secrets of runs have names",
    ),
    "the Secret of another as a key": (
        {"endpoints": {"judge": {"secretName": "theirs"}}},
        "Secrets of runs have names",
    ),
    "the Secret of another as files": (
        {"pods": [{"volumes": [{"name": "m", "secret": {"secretName": "theirs"}}]}]},
        "Secrets of runs have names",
    ),
    "the Secret of another as environment": (
        {"pods": [{"labels": {"a": "b"}}, {"envFrom": [SECRET]}]},
        "Secrets of runs",
    ),
    "one key of another's Secret": (
        {"pods": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "theirs", "key": "a"}}}]}]},
        "Secrets of runs have names",
    ),
    **{
        f"the Secret of another: {name}": (spec, "Secrets of runs have names")
        for name, spec in {
            "for readers": {"store": {"uri": "s3://b/p", "secretName": "gog-s3", "readerSecretName": "theirs"}},
            "of a fallback": {
                "tools": {"judge": {"fallback": {"url": "http://j.example.org", "secretName": "theirs"}}}
            },
            "of a registry": {"pods": [{"imagePullSecrets": [{"name": "theirs"}]}]},
            "of a dataset": {"data": {"uri": "hf://datasets/org/pool", "secretName": "theirs"}},
            "of an agent": {"serve": {"agent": {"keysSecretName": "theirs"}}},
            "of an agent's store": {"serve": {"store": {"uri": "s3://b/a", "secretName": "theirs"}}},
        }.items()
    },
    "a base in an image of another registry": (
        {"model": {"base": "oci://docker.example.com/m:1"}},
        "images come from",
    ),
    "a dataset in an image of another registry": (
        {"data": {"uri": "oci://docker.example.com/d:1"}},
        "images come from",
    ),
    "too many GPUs by a patch": ({"pods": [{"resources": {"nvidia.com/gpu": 64}}]}, "a pod has at most 16 GPUs"),
    "too many GPUs": ({"stages": {"grpo": {"workers": {"replicas": 3, "gpus": 8}}}}, "a stage has at most 16 GPUs"),
    "another priority": ({"scheduling": {"priorityClassName": "urgent"}}, "priority class of runs is batch"),
    "another priority by a patch": ({"pods": [{"priorityClassName": "urgent"}]}, "priority class of runs is batch"),
}


@pytest.fixture(scope="module")
def tenant(api_server):
    """A namespace in which the policy holds. It is removed afterwards, because others of this server are as they were."""
    names = [api_server.namespace("tenant"), api_server.namespace("free")]
    api_server.kubectl("label", "namespace", names[0], "gog.dev/tenant=true")
    files = [SAMPLES / f"admission-policy{part}.yaml" for part in ("", "-binding", "-scale", "-scale-binding")]
    for file in files:
        api_server.kubectl("apply", "--server-side", "-f", file)
    until(lambda: "denied" in create(api_server, names[0], REFUSED["too many GPUs"][0]), patience=30)
    yield names
    for file in files:
        api_server.kubectl("delete", "-f", file)


def create(api_server, namespace: str, spec: dict[str, Any], kind: str = "GoGRun") -> str:
    body = yaml.safe_dump(for_cluster(kind, **spec))
    line = ("-n", namespace, "create", "--dry-run=server", "--validate=strict", "-f", "-")
    output: str = api_server.kubectl(*line, input=body, check=False)
    return output


@pytest.mark.parametrize("case", ALLOWED)
def test_what_the_policy_allows_is_created(api_server, tenant, case):
    assert re.search("created", create(api_server, tenant[0], ALLOWED[case]))


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_policy_refuses_is_denied_with_its_reason_and_elsewhere_created(api_server, tenant, case):
    spec, message = REFUSED[case]
    assert message in create(api_server, tenant[0], spec)
    assert "created" in create(api_server, tenant[1], spec), "the policy holds in labelled namespaces only"


def test_a_stage_and_a_server_that_a_tenant_creates_are_limited_too(api_server, tenant):
    stage = {"store": {"uri": "s3://b/p", "secretName": "theirs"}}
    server = {"role": "judge", "image": "docker.example.com/judge"}
    many = {"workers": {"replicas": 3, "gpus": 8}}
    keys = {"endpointSecrets": {"judge": "theirs"}}
    large = {"role": "judge", "resources": {"limits": {"nvidia.com/gpu": 32}}}
    for pods in (
        {"resources": {"limits": {"nvidia.com/gpu": 8}}, "replicas": 3},
        {"resources": {"limits": {"nvidia.com/mig-3g.40gb": "8"}}, "replicas": 3},
        {"pods": [{"resources": {"nvidia.com/gpu": 8}}], "replicas": 3},
        {"runtime": "vllm", "base": "hf://org/judge", "replicas": 17},
    ):
        server = {"role": "judge", **pods}
        assert "a server has at most 16 GPUs" in create(api_server, tenant[0], server, "ToolServer"), pods
        assert "created" in create(api_server, tenant[0], server | {"replicas": 1}, "ToolServer"), pods
    assert "created" in create(api_server, tenant[0], {"role": "judge", "replicas": 64}, "ToolServer")
    server = {"role": "judge", "image": "docker.example.com/judge"}
    assert "Secrets of runs have names" in create(api_server, tenant[0], keys, "GRPOStage")
    assert "at most 16 GPUs" in create(api_server, tenant[0], large, "ToolServer")
    assert "Secrets of runs have names" in create(api_server, tenant[0], stage, "SFTStage")
    assert "at most 16 GPUs" in create(api_server, tenant[0], many, "GRPOStage")
    assert "images come from" in create(api_server, tenant[0], server, "ToolServer")
    assert "created" in create(api_server, tenant[0], {"role": "judge", "model": "qwen3-32b"}, "ToolServer")
    named = {"endpoints": {"judge": "world-judge"}, "endpointSecrets": {"judge": "gog-judge"}}
    assert "created" in create(api_server, tenant[0], named, "GRPOStage")


def test_a_server_is_scaled_down_by_its_subresource_and_up_by_its_spec(api_server, tenant):
    body = for_cluster("ToolServer", "scaled", role="judge", resources={"limits": {"nvidia.com/gpu": 8}}, replicas=2)
    api_server.kubectl("-n", tenant[0], "create", "-f", "-", input=yaml.safe_dump(body))

    def scale(replicas: int) -> str:
        line = ("-n", tenant[0], "scale", "toolserver/scaled", f"--replicas={replicas}")
        output: str = api_server.kubectl(*line, check=False)
        return output

    until(lambda: "spec.replicas of the ToolServer" in scale(3), patience=30)
    assert "scaled" in scale(1)
    patch = ("-n", tenant[0], "patch", "toolserver/scaled", "--type=merge", "-p")
    assert "patched" in api_server.kubectl(*patch, '{"spec": {"replicas": 2}}')
    assert "at most 16 GPUs" in api_server.kubectl(*patch, '{"spec": {"replicas": 3}}', check=False)
