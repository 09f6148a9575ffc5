"""An agent on a real node: a run offers it a version, a chat is answered, a second run's version is tried and replaces it.

The runs are two of SFT alone, poor but quick, and `make e2e` starts the cluster. The tests share them, and are in order.
"""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image as PILImage
from support import audit, served_runs
from support.installed_chart import NAMESPACE, SYSTEM
from support.kube import ApiServer
from support.operator_builders import until as until_within

pytestmark = pytest.mark.cluster

PATIENCE = 600.0
STORE = {
    "uri": "s3://gog/offered",
    "endpointUrl": "http://10.88.0.1:7070",
    "pathStyle": True,
    "region": "us-east-1",
    "secretName": "gog-s3",
}


def manifest(name: str, seed: int) -> dict[str, Any]:
    """A run that offers its version to `assistant`, with a store of its own."""
    body = served_runs.manifest(name, seed, store=STORE)
    body["metadata"]["namespace"] = NAMESPACE
    body["spec"]["store"] = STORE | {"uri": f"{STORE['uri']}/{name}"}
    return body


def until(happens: Callable[[], Any], patience: float) -> Any:
    return until_within(happens, patience, pause=1.0)


class Agent:
    """The agent as kubectl shows it, and as its users see it."""

    def __init__(self, cluster: ApiServer) -> None:
        self.cluster = cluster

    def get(self, kind: str, name: str) -> dict[str, Any]:
        listed = json.loads(self.cluster.kubectl("get", kind, "-n", NAMESPACE, "-o", "json"))["items"]
        return next((each for each in listed if each["metadata"]["name"] == name), {})

    def reason(self, kind: str, name: str, type_: str) -> str:
        """Reason of a condition that is true; empty where it is not."""
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return next((each["reason"] for each in conditions if (each["type"], each["status"]) == (type_, "True")), "")

    @property
    def status(self) -> dict[str, Any]:
        return self.get("toolservers.gog.dev", "assistant").get("status", {})

    def ask(self, path: str, body: dict[str, Any] | None = None) -> str:
        """What the agent's pod answers, at its own address."""
        (pod,) = self.status["pods"]
        url = f"http://{self.get('pods', pod)['status']['podIP']}:8080{path}"
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=120) as answer:
            return str(answer.read().decode())

    def chat(self, image: str) -> dict[str, Any]:
        return dict(json.loads(self.ask("/v1/chat/completions", served_runs.chat(image))))

    def version(self, image: str) -> str:
        """The version that answers a chat."""
        return str(self.chat(image)["system_fingerprint"])


@pytest.fixture(scope="module")
def agent(installed: ApiServer) -> Agent:
    """The agent, which serves the version of a run that is complete."""
    agent = Agent(installed)
    installed.apply(manifest("one", 0))
    until(lambda: agent.reason("gogruns", "one", "Served"), PATIENCE)
    return agent


@pytest.fixture(scope="module")
def image() -> str:
    """A picture as a chat has it."""
    drawn = io.BytesIO()
    PILImage.new("RGB", (112, 112), (250, 250, 245)).save(drawn, "PNG")
    return f"data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}"


def test_the_version_of_a_complete_run_answers_chats_and_has_a_page(agent: Agent, image: str) -> None:
    answer = agent.chat(image)
    assert answer["system_fingerprint"] == "assistant-1"
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert "<!doctype html>" in agent.ask("/").lower()


def test_the_agent_has_servers_of_its_own_that_outlive_the_run(agent: Agent, image: str) -> None:
    agent.cluster.kubectl("delete", "gogrun", "one", "-n", NAMESPACE, "--cascade=foreground", "--timeout=120s")
    assert agent.version(image) == "assistant-1"


def test_a_later_run_s_version_answers_a_share_of_chats_and_then_all(agent: Agent, image: str) -> None:
    agent.cluster.apply(manifest("two", 1))
    until(lambda: agent.status.get("canary", {}).get("version") == "assistant/2", PATIENCE)
    answered: set[str] = set()

    def replaced() -> bool:
        answered.add(agent.version(image))
        return agent.status["version"] == "assistant/2"

    until(replaced, PATIENCE)
    assert answered >= {"assistant-1", "assistant-2"}
    until(lambda: agent.version(image) == "assistant-2", 180)
    until(lambda: agent.reason("gogruns", "two", "Served"), 60)


def test_a_rollback_is_an_annotation(agent: Agent, image: str) -> None:
    given = "gog.dev/rollback=assistant/2"
    agent.cluster.kubectl("annotate", "toolserver", "assistant", given, "-n", NAMESPACE, "--overwrite")
    until(lambda: agent.status["version"] == "assistant/1", 60)
    until(lambda: agent.version(image) == "assistant-1", 180)


def test_no_pod_violated_the_restricted_level_and_no_request_of_the_operator_was_denied(agent: Agent) -> None:
    events = json.loads(agent.cluster.kubectl("get", "events", "-n", NAMESPACE, "-o", "json"))["items"]
    assert [each["message"] for each in events if "violates PodSecurity" in each.get("message", "")] == []
    asked = audit.requests(agent.cluster.audit_log, f"system:serviceaccount:{SYSTEM}:gog-operator")
    assert audit.denied(asked) == set()


def test_an_agent_that_is_deleted_in_the_foreground_ends_with_all_of_its_pods(agent: Agent) -> None:
    for kind, name in (("gogrun", "two"), ("toolserver", "assistant")):
        agent.cluster.kubectl("delete", kind, name, "-n", NAMESPACE, "--cascade=foreground", "--wait=false")
    until(lambda: not agent.get("toolservers.gog.dev", "assistant"), 180)
    until(lambda: "assistant" not in agent.cluster.kubectl("get", "pods", "-n", NAMESPACE, "-o", "name"), 120)
