"""What kubectl shows of the custom resources on a real API server: columns, categories, scale, documentation."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from support.operator_builders import for_cluster as made

from gog_operator.api.objects import KINDS

pytestmark = pytest.mark.apiserver


@pytest.fixture(scope="module")
def kubectl(api_server):
    """kubectl in a namespace of this module's own; text for `-f -` as input."""
    namespace = api_server.namespace("kubectl")
    return lambda *args, **more: api_server.kubectl("-n", namespace, *args, **more)


def stored(kubectl, kind: str, name: str) -> dict[str, Any]:
    return json.loads(kubectl("get", f"{kind.lower()}.gog.dev", name, "-o", "json"))


def test_the_status_is_a_subresource_and_shown_in_columns(kubectl):
    kubectl("create", "-f", "-", input=yaml.safe_dump(made(name="shown") | {"status": {"stage": "ignored"}}))
    assert stored(kubectl, "GoGRun", "shown").get("status") is None
    report(kubectl, "gogrun", "shown", "Training", stage="grpo", progress="41/120", reward="0.47", toolFailures="1.8%")
    head, row = kubectl("get", "gr", "shown").splitlines()
    assert head.split() == ["NAME", "STAGE", "PROGRESS", "REWARD", "TOOL-FAIL", "READY", "AGE"]
    assert row.split()[:-1] == ["shown", "grpo", "41/120", "0.47", "1.8%", "Training"]


def report(kubectl, kind: str, name: str, reason: str, more: dict[str, Any] | None = None, **summary: str) -> None:
    condition = {"type": "Ready", "status": "True", "reason": reason, "lastTransitionTime": "2026-03-14T09:26:53.123Z"}
    others = {**condition, "type": "Suspended", "status": "False", "reason": "SomethingNewer"}
    status = {"conditions": [others, condition], "summary": summary, **(more or {})}
    patch = json.dumps({"status": status})
    kubectl("patch", f"{kind}.gog.dev", name, "--subresource=status", "--type=merge", "-p", patch)


def test_stages_and_tool_servers_have_their_own_columns(kubectl):
    kubectl("create", "-f", "-", input=yaml.safe_dump(made("SFTStage", "columns")))
    kubectl("create", "-f", "-", input=yaml.safe_dump(made("ToolServer", "columns", role="judge")))
    report(kubectl, "sftstage", "columns", "Running", {"attempt": 2, "checkpoint": "sft/20"}, progress="20/30")
    report(kubectl, "toolserver", "columns", "Ready", {"url": "http://c.svc", "version": "grpo/1"})
    head, row = kubectl("get", "sft", "columns", "-o", "wide").splitlines()
    assert head.split() == ["NAME", "ATTEMPT", "PROGRESS", "REASON", "AGE", "CHECKPOINT", "MESSAGE"]
    assert row.split()[:4] == ["columns", "2", "20/30", "Running"] and row.split()[5] == "sft/20"
    head, row = kubectl("get", "toolserver", "columns").splitlines()
    assert head.split() == ["NAME", "URL", "READY", "VERSION", "AGE"]
    assert row.split()[:4] == ["columns", "http://c.svc", "True", "grpo/1"]


def test_the_category_gog_lists_every_kind(kubectl):
    for kind in KINDS:
        spec = {"role": "judge"} if kind == "ToolServer" else {}
        kubectl("create", "-f", "-", input=yaml.safe_dump(made(kind, "listed", **spec)))
    shown = kubectl("get", "gog", "-o", "name").split()
    assert {f"{kind.lower()}.gog.dev/listed" for kind in KINDS} <= set(shown)


def test_a_tool_server_can_be_scaled(kubectl):
    kubectl("create", "-f", "-", input=yaml.safe_dump(made("ToolServer", "scaled", role="judge")))
    kubectl("scale", "toolserver/scaled", "--replicas=3")
    assert stored(kubectl, "ToolServer", "scaled")["spec"]["replicas"] == 3


def test_kubectl_explain_documents_every_field(kubectl):
    text = " ".join(kubectl("explain", "gogrun.spec.stages.grpo.learningRate").split())
    assert "[paper: 2e-6]. Default: 2e-06, or the model family's preset." in text
    for kind in KINDS:
        output = kubectl("explain", f"{kind.lower()}.spec")
        assert "<empty>" not in output and "<no description>" not in output
