"""A run that serves its result, on a real API server: its agent, the servers that it owns, a canary, a rollback."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from support.fault_harness import Harness, condition

from gog_operator.api.meta import ROLLBACK
from gog_operator.cluster import paths
from gog_operator.cluster.kube import ApiError

pytestmark = pytest.mark.apiserver

NUMBERS = itertools.count(1)
SERVE = {"agent": {"name": "assistant", "keysSecretName": "callers"}, "canary": {"chats": 10, "share": 0.2}}
STAGES = {"skip": ["curate", "stratify", "grpo"], "evaluate": {"policies": ["sft"]}}


@pytest.fixture
def harness(bare_api_server) -> Harness:
    """A complete run whose agent serves its first version."""
    made = Harness(str(bare_api_server.kubeconfig), f"agent-{next(NUMBERS)}", serve=SERVE, stages=STAGES)
    made.run_to_the_end()
    made.until(lambda: condition(agent(made), "Ready", "True"))
    made.rest()
    return made


def agent(harness: Harness) -> dict[str, Any]:
    return harness.get("ToolServer", "assistant")


def status(harness: Harness) -> dict[str, Any]:
    found: dict[str, Any] = agent(harness).get("status") or {}
    return found


def routes(harness: Harness) -> dict[str, Any]:
    path = paths.CONFIG_MAPS.path(harness.namespace, "assistant-version")
    found: dict[str, Any] = json.loads(harness.recorder.objects[path]["data"]["routes.json"])
    return found


def ask(harness: Harness, version: str) -> None:
    """Asks for a version, and waits until it has its share of the chats."""
    harness.edit(paths.OURS["ToolServer"].path(harness.namespace, "assistant"), {"spec": {"version": version}})
    harness.until(lambda: routes(harness)["canary"] == version.replace("/", "-"))


def chatted(harness: Harness, served: tuple[int, int], canary: tuple[int, int]) -> None:
    def counts(chats: int, failed: int) -> dict[str, float]:
        return {"chats": chats, "failed": failed, "malformed": 0, "log_seconds": 0.0, "log_seconds_squared": 1.0}

    about = {name: routes(harness)[name] for name in ("served", "canary")}
    chats = {"served": counts(*served), "canary": counts(*canary)}
    harness.chats = {"step": canary[0], "total": 0, "metrics": {**about, "chats": chats}}


def test_a_complete_run_hands_its_version_to_an_agent_that_owns_its_servers(harness):
    promoted, served = (condition(harness.run, type_, "True") for type_ in ("Promoted", "Served"))
    assert promoted["reason"] == "GatePassed" and served["message"] == "assistant serves assistant/1"
    names = {body["metadata"]["name"] for _, body in harness.recorder.of(paths.INFERENCE_SERVICES)}
    tools = {f"assistant-{each}" for each in ("grounding", "image-search", "text-search", "policy")}
    assert names == {"assistant", *tools}, "the run's own servers are gone"
    assert not agent(harness)["metadata"].get("ownerReferences"), "it outlives the run"
    uid = agent(harness)["metadata"]["uid"]
    assert all(harness.get("ToolServer", each)["metadata"]["ownerReferences"][0]["uid"] == uid for each in tools)
    assert agent(harness)["spec"]["agent"]["settings"] == {"maxTurns": 6}
    service = harness.recorder.objects[paths.INFERENCE_SERVICES.path(harness.namespace, "assistant")]
    command = service["spec"]["predictor"]["containers"][0]["command"]
    assert (
        command[:3] == ["gog", "serve", "agent"] and command[command.index("--keys") + 1] == "/etc/gog-keys/keys.json"
    )
    assert routes(harness)["served"] == "assistant-1"


def test_a_version_that_is_no_worse_replaces_the_old_one_and_a_user_returns_to_it(harness):
    ask(harness, "assistant/2")
    chatted(harness, (40, 0), (10, 0))
    harness.until(lambda: status(harness)["version"] == "assistant/2")
    harness.rest()
    assert routes(harness) | {"policy": "", "tools": ""} == {
        "served": "assistant-2", "canary": "", "share": 0.0, "policy": "", "tools": "",
    }  # fmt: skip
    assert condition(agent(harness), "Promoted", "True")["reason"] == "Promoted"
    path = paths.OURS["ToolServer"].path(harness.namespace, "assistant")
    harness.edit(path, {"metadata": {"annotations": {ROLLBACK: "assistant/2"}}})
    harness.until(lambda: routes(harness)["served"] == "assistant-1")
    harness.rest()
    assert status(harness)["version"] == "assistant/1" and routes(harness)["canary"] == ""


def test_a_version_that_is_worse_is_rolled_back_although_the_operator_dies_meanwhile(harness):
    ask(harness, "assistant/2")
    chatted(harness, (40, 0), (8, 8))
    harness.operator = harness._start()
    harness.until(lambda: status(harness).get("canary", {}).get("rejected") == "assistant/2")
    harness.operator = harness._start()
    harness.rest()
    assert status(harness)["version"] == "assistant/1" and routes(harness)["canary"] == ""
    assert harness.get("ToolServer", "assistant-policy")["spec"]["version"] == "assistant/1"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"serve": {}, "endpoints": {"policy": {"url": "http://p"}}},
            "serve loads versions into a policy server that gog",
        ),
        ({"serve": {}, "stages": {"skip": ["evaluate"]}}, "serve needs the stage evaluate"),
        ({"serve": {"canary": {"share": 0.9}}}, "spec.serve.canary.share"),
    ],
)
def test_a_result_that_cannot_be_served_is_refused(bare_api_server, spec, words):
    with pytest.raises(ApiError, match=words):
        Harness(str(bare_api_server.kubeconfig), f"agent-{next(NUMBERS)}", **spec)
