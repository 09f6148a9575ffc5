"""What of an object may change on a real API server: nothing that would make its results those of two settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from support.operator_builders import S3 as STORE
from support.operator_builders import for_cluster as made

pytestmark = pytest.mark.apiserver


@pytest.fixture(scope="module")
def kubectl(api_server):
    """kubectl in a namespace of this module's own; text for `-f -` as input."""
    namespace = api_server.namespace("changes")
    return lambda *args, **more: api_server.kubectl("-n", namespace, *args, **more)


def refusal(kubectl, *args: str) -> str:
    """kubectl's message when the API server refuses; fails if it does not."""
    output = kubectl(*args, check=False)
    assert "is invalid" in output, output
    return output


def stored(kubectl, kind: str, name: str) -> dict[str, Any]:
    return json.loads(kubectl("get", f"{kind.lower()}.gog.dev", name, "-o", "json"))


FIXED = {
    "a run's model": ("GoGRun", {}, {"model": {"base": "s3://b/q"}}, "spec.model: Forbidden: cannot change"),
    "a field added": ("GoGRun", {}, {"seed": 1}, "spec.seed: Forbidden: cannot change"),
    "a field removed": ("GoGRun", {"seed": 1}, {"seed": None}, "spec.seed: Forbidden: cannot change"),
    "deep inside": (
        "GoGRun",
        {"stages": {"grpo": {"steps": 1}}},
        {"stages": {"grpo": {"steps": 2}}},
        "spec.stages: Forbidden: cannot change once the run exists: "
        "delete the run and apply it again; the contents of the store are kept",
    ),
    "a field without a type, nested": (
        "GoGRun",
        {"stages": {"grpo": {"gaze": "select"}}},
        {"stages": {"grpo": {"gaze": False}}},
        "spec.stages: Forbidden: cannot change",
    ),
    "what an arm sets": (
        "GoGRun",
        {"arms": [{"name": "a", "set": {"stages.grpo.gaze": "off"}}]},
        {"arms": [{"name": "a", "set": {"stages.grpo.gaze": "direct"}}]},
        "spec.arms: Forbidden: cannot change",
    ),
    "the controller": ("GoGRun", {}, {"managedBy": "kueue.x-k8s.io/multikueue"}, "spec.managedBy: Forbidden"),
    "a stage's settings": (
        "GRPOStage",
        {},
        {"klCoef": 0.5},
        "spec.klCoef: Forbidden: cannot change once the stage exists",
    ),
    "a field without a type": (
        "GRPOStage",
        {"gaze": "select"},
        {"gaze": "off"},
        "spec: Forbidden: gaze, activationCheckpointing cannot change once the stage exists",
    ),
    "the role of a tool server": (
        "ToolServer",
        {"role": "judge"},
        {"role": "grounding"},
        "spec.role: Forbidden: cannot change once the tool server exists",
    ),
    "the url of a tool server": (
        "ToolServer",
        {"role": "judge"},
        {"url": "http://j"},
        "spec.url: Forbidden: cannot change",
    ),
}


@pytest.mark.parametrize(("kind", "before", "change", "sentence"), FIXED.values(), ids=FIXED.keys())
def test_fields_that_are_fixed_at_creation_cannot_change(kubectl, kind, before, change, sentence):
    name = "fixed"
    kubectl("delete", f"{kind.lower()}.gog.dev", name, "--ignore-not-found")
    kubectl("create", "-f", "-", input=yaml.safe_dump(made(kind, name, **before)))
    patch = json.dumps({"spec": change})
    assert sentence in refusal(kubectl, "patch", f"{kind.lower()}.gog.dev", name, "--type=merge", "-p", patch)


CHANGEABLE = {
    "GoGRun": [{"suspend": True}, {"backoffLimit": 9}, {"activeDeadlineSeconds": 60}, {"activeDeadlineSeconds": None}]
    + [{"ttlSecondsAfterFinished": 0}, {"retention": {"keepLast": 1}}],
    "GRPOStage": [{"suspend": True}, {"suspend": False, "retention": {"keepLast": 1}}],
    "ToolServer": [{"replicas": 3}, {"version": "grpo/60"}, {"failures": {"rate": 0.5}}, {"image": "mine:2"}]
    + [{"resources": {"limits": {"cpu": 2}}}],
}


@pytest.mark.parametrize(("kind", "changes"), CHANGEABLE.items(), ids=CHANGEABLE.keys())
def test_lifecycle_fields_may_change(kubectl, kind, changes):
    spec = {"role": "policy", "base": "tiny", "version": "grpo/20", "store": STORE} if kind == "ToolServer" else {}
    kubectl("create", "-f", "-", input=yaml.safe_dump(made(kind, "steered", **spec)))
    for change in changes:
        kubectl("patch", f"{kind.lower()}.gog.dev", "steered", "--type=merge", "-p", json.dumps({"spec": change}))
        read = stored(kubectl, kind, "steered")["spec"]
        assert {key: read.get(key) for key in change} == change


@pytest.mark.parametrize(("kind", "change"), [
    ("GoGRun", {"scheduling": {"queue": "large"}}), ("GRPOStage", {"scheduling": {"queue": "large"}}),
    ("GRPOStage", {"workers": {"replicas": 4, "gpus": 8}}),
])  # fmt: skip
def test_place_and_size_of_the_pods_may_change_while_suspended(kubectl, kind, change):
    name, plural = "moved", f"{kind.lower()}.gog.dev"

    def patch(spec):
        return ("patch", plural, name, "--type=merge", "-p", json.dumps({"spec": spec}))

    kubectl("delete", plural, name, "--ignore-not-found")
    kubectl("create", "-f", "-", input=yaml.safe_dump(made(kind, name)))
    assert "can change only while it is suspended" in refusal(kubectl, *patch(change))
    kubectl(*patch({"suspend": True}))
    kubectl(*patch(change))
    kubectl(*patch({"suspend": False}))
    assert "can change only while it is suspended" in refusal(kubectl, *patch({next(iter(change)): None}))
    kubectl(*patch({"suspend": True}))
    kubectl(*patch({"suspend": False, next(iter(change)): None}))


RESIZED = [
    ({"stages": {"grpo": {"workers": {"replicas": 4, "gpus": 8}}}}, ""),
    ({"stages": {"sft": {"workers": {"memory": "64Gi"}}}}, ""),
    ({"stages": {"grpo": {"workers": None}}}, ""),
    ({"stages": {"sft": None}}, ""),
    ({"stages": {"grpo": {"steps": 2}}}, "spec.stages.grpo: Forbidden: cannot change"),
    ({"stages": {"grpo": {"steps": 2, "workers": {"replicas": 2}}}}, "spec.stages.grpo: Forbidden: cannot change"),
    ({"stages": {"grpo": {"gaze": False}}}, "spec.stages.grpo: Forbidden: cannot change"),
    ({"stages": {"grpo": None}}, "spec.stages: Forbidden: cannot change"),
    ({"stages": {"evaluate": {"samples": 1}}}, "spec.stages: Forbidden: cannot change"),
    ({"stages": {"evaluate": {"samples": 1, "workers": {"gpus": 1}}}}, "spec.stages: Forbidden: cannot change"),
    ({"stages": {"skip": ["curate"]}}, "spec.stages: Forbidden: cannot change"),
    ({"stages": None}, "spec.stages: Forbidden: cannot change"),
]


def test_of_the_stages_of_a_suspended_run_the_workers_may_change_and_nothing_else(kubectl):
    def patch(spec):
        return ("patch", "gogruns.gog.dev", "resized", "--type=merge", "-p", json.dumps({"spec": spec}))

    given = {"stages": {"grpo": {"steps": 1, "gaze": "select"}}}
    kubectl("create", "-f", "-", input=yaml.safe_dump(made("GoGRun", "resized", **given)))
    change = RESIZED[0][0]
    assert "workers can change while it is suspended" in refusal(kubectl, *patch(change))
    kubectl(*patch({"suspend": True}))
    for change, sentence in RESIZED:
        if sentence:
            assert sentence in refusal(kubectl, *patch(change)), change
        else:
            kubectl(*patch(change))
    kubectl(*patch({"suspend": False}))
    assert "cannot change" in refusal(kubectl, *patch(RESIZED[0][0]))
