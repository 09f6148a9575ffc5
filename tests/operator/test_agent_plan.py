"""The plan of an agent: its servers, its versions, its canary. Every test drives the control loop over a cluster in memory."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from support.operator_builders import NOW, READY_DATA, FakeCluster, later

from gog_operator import reconcile
from gog_operator.api.meta import ROLLBACK
from gog_operator.api.objects import Progress, ToolServer
from gog_operator.cluster.interface import Conflict

NAME = "assistant"
AGENT = {"model": {"base": "tiny"}, "endpoints": {"policy": {}}, "canary": {"chats": 100, "share": 0.2}}


def make_agent(version: str = "assistant/1") -> ToolServer:
    spec = {
        "role": "agent",
        "agent": AGENT,
        "version": version,
        "store": {"uri": "s3://b/p"},
        "data": {"uri": "s3://b/p"},
    }
    body = {"apiVersion": "gog.dev/v1alpha1", "kind": "ToolServer", "metadata": {"name": NAME}, "spec": spec}
    return ToolServer.model_validate(body)


class Loop:
    """The control loop over one agent."""

    def __init__(self) -> None:
        self.cluster = FakeCluster(is_persistent=True)
        self.cluster.made = READY_DATA
        self.cluster.create(make_agent())
        self.seconds = 0.0

    def sweep(self, times: int = 6) -> None:
        """Passes over every ToolServer; servers that were started become ready."""
        for _ in range(times):
            self.seconds += 1
            for each in (NAME, *sorted(name for _, name in self.cluster.things if name != NAME)):
                reconcile.reconcile(self.cluster, "ToolServer", each, later(self.seconds))
            self.cluster.answer()

    @property
    def agent(self) -> ToolServer:
        found = self.cluster.get(ToolServer, NAME)
        assert found is not None
        return found

    @property
    def routes(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cluster.routes[NAME])
        return found

    def ask(self, version: str) -> None:
        self.cluster.patch("ToolServer", NAME, spec={"version": version}, annotations={})

    def chatted(self, served: tuple[int, int], canary: tuple[int, int]) -> None:
        """The agent reports chats, and how many of them failed, of the versions in its routes."""

        def counts(chats: int, failed: int) -> dict[str, float]:
            return {"chats": chats, "failed": failed, "malformed": 0, "log_seconds": 0.0, "log_seconds_squared": 1.0}

        about = {"served": self.routes["served"], "canary": self.routes["canary"]}
        metrics = about | {"chats": {"served": counts(*served), "canary": counts(*canary)}}
        self.cluster.reported_chats = Progress(step=canary[0], metrics=metrics)

    def reasons(self) -> list[str]:
        return [event.reason for name, event in self.cluster.events if name == NAME]


@pytest.fixture
def loop() -> Loop:
    """An agent that serves its first version."""
    made = Loop()
    made.sweep()
    return made


def test_an_agent_starts_its_servers_and_answers_once_they_are_ready(loop):
    names = {name for _, name in loop.cluster.things}
    assert names == {NAME, *(f"{NAME}-{each}" for each in ("grounding", "image-search", "text-search", "policy"))}
    assert loop.agent.holds("Ready") and loop.agent.status.version == "assistant/1"
    assert loop.routes["served"] == "assistant-1" and loop.routes["canary"] == ""
    assert set(loop.routes["tools"]) == {"grounding", "imageSearch", "textSearch"}
    calls = loop.cluster.calls
    assert calls.index(f"serve {NAME}") > calls.index(f"load assistant/1 {NAME}-policy"), "no chat without a policy"
    assert all(each.owned_by(loop.agent) for (_, name), each in loop.cluster.things.items() if name != NAME)


def test_a_settled_agent_causes_no_further_call(loop):
    before = list(loop.cluster.calls)
    loop.sweep(3)
    assert loop.cluster.calls == before


def test_a_new_version_is_loaded_beside_the_old_one_before_it_gets_a_share(loop):
    loop.ask("assistant/2")
    loop.sweep(1)
    assert loop.routes["canary"] == "", "the policy has not loaded it"
    loop.sweep()
    assert loop.cluster.servers[f"{NAME}-policy"].version == "assistant/1 assistant/2"
    assert (loop.routes["served"], loop.routes["canary"], loop.routes["share"]) == ("assistant-1", "assistant-2", 0.2)
    assert loop.agent.status.version == "assistant/1" and not loop.agent.holds("Promoted")


def test_a_version_that_is_no_worse_replaces_the_old_one(loop):
    loop.ask("assistant/2")
    loop.sweep()
    loop.chatted((400, 4), (100, 1))
    loop.sweep()
    assert loop.agent.status.version == "assistant/2" and loop.agent.status.canary.previous == "assistant/1"
    assert (loop.routes["served"], loop.routes["canary"]) == ("assistant-2", "")
    assert loop.cluster.servers[f"{NAME}-policy"].version == "assistant/2"
    assert loop.agent.holds("Promoted") and "failed 1/100 against 4/400" in loop.agent.condition("Promoted").message
    assert [each for each in loop.reasons() if each in ("Canary", "Promoted")] == ["Canary", "Promoted"]


def test_a_version_that_is_worse_is_rolled_back_and_not_tried_again(loop):
    loop.ask("assistant/2")
    loop.sweep()
    loop.chatted((80, 0), (20, 15))
    loop.sweep()
    assert loop.agent.status.version == "assistant/1" and loop.routes["canary"] == ""
    assert loop.agent.status.canary.rejected == "assistant/2" and loop.agent.spec.version == "assistant/2"
    assert "more chats fail" in loop.agent.condition("Promoted").message
    loop.sweep()
    assert loop.reasons().count("Canary") == 1 and loop.reasons()[-1] == "RolledBack"
    loop.ask("assistant/3")
    loop.sweep()
    assert loop.routes["canary"] == "assistant-3"


def test_counts_of_other_versions_decide_nothing(loop):
    loop.ask("assistant/2")
    loop.sweep()
    loop.chatted((80, 0), (20, 15))
    loop.cluster.reported_chats = Progress(metrics={**loop.cluster.reported_chats.metrics, "canary": "assistant-9"})
    loop.sweep()
    assert loop.agent.status.canary.version == "assistant/2"


@pytest.mark.parametrize("chats", [None, {}, {"served": 1}, {"served": {"chats": 3}, "canary": {"chats": "many"}}])
def test_a_report_that_cannot_be_read_decides_nothing(loop, chats):
    loop.ask("assistant/2")
    loop.sweep()
    about = {"served": "assistant-1", "canary": "assistant-2", "chats": chats}
    loop.cluster.reported_chats = Progress(metrics=about)
    loop.sweep()
    assert loop.agent.status.canary.version == "assistant/2"


def test_a_user_ends_a_trial(loop):
    loop.ask("assistant/2")
    loop.sweep()
    loop.cluster.patch("ToolServer", NAME, spec={}, annotations={ROLLBACK: "assistant/2"})
    loop.sweep()
    assert loop.agent.status.version == "assistant/1" and loop.agent.status.canary.rejected == "assistant/2"


def test_a_user_returns_to_the_version_before(loop):
    loop.ask("assistant/2")
    loop.sweep()
    loop.chatted((400, 4), (100, 1))
    loop.sweep()
    loop.cluster.patch("ToolServer", NAME, spec={}, annotations={ROLLBACK: "assistant/2"})
    loop.sweep()
    assert loop.agent.status.version == "assistant/1" and loop.routes["served"] == "assistant-1"
    assert loop.cluster.servers[f"{NAME}-policy"].version == "assistant/1"
    loop.sweep()
    assert loop.agent.status.canary.version == "", "the version that spec asks for was rolled back"


def test_a_version_that_is_never_loaded_is_rolled_back_after_the_time_for_a_start(loop):
    loop.cluster.load_version = lambda *_: None
    loop.ask("assistant/2")
    loop.sweep()
    assert loop.agent.status.canary.version == "assistant/2"
    loop.seconds += loop.agent.spec.startup_seconds
    loop.sweep()
    assert loop.agent.status.canary.rejected == "assistant/2" and loop.routes["served"] == "assistant-1"


def test_a_newer_version_ends_the_trial_of_the_one_before(loop):
    loop.ask("assistant/2")
    loop.sweep()
    loop.ask("assistant/3")
    loop.sweep()
    assert loop.routes["canary"] == "assistant-3" and loop.agent.status.version == "assistant/1"


def test_an_operator_that_dies_before_or_after_any_call_of_a_promotion_leaves_a_version_that_is_served():
    def promoted(dies_at: int, *, after: bool) -> Loop | None:
        """A promotion whose operator dies at a call, or None where there are fewer calls. The next one continues."""
        loop = Loop()
        loop.sweep()
        loop.ask("assistant/2")
        loop.sweep()
        loop.chatted((400, 4), (100, 1))
        count = 0

        class Dies(Exception):
            pass

        def dying(call: Any) -> Any:
            def wrapped(*given: Any, **more: Any) -> Any:
                nonlocal count
                count += 1
                if count == dies_at and not after:
                    raise Dies
                done = call(*given, **more)
                if count == dies_at:
                    raise Dies
                return done

            return wrapped

        names = ("patch_status", "patch", "set_routes", "load_version")
        kept = {name: getattr(loop.cluster, name) for name in names}
        for name in names:
            setattr(loop.cluster, name, dying(kept[name]))
        died = False
        try:
            loop.sweep()
        except (Dies, Conflict):
            died = True
        for name in names:
            setattr(loop.cluster, name, kept[name])
        policy = loop.cluster.servers[f"{NAME}-policy"].version.split()
        names_loaded = [each.replace("/", "-") for each in policy]
        assert loop.routes["served"] in names_loaded or loop.routes["served"] == "assistant-1", "KEPT: still loaded"
        loop.sweep()
        return loop if died else None

    for after in (False, True):
        for call in range(1, 40):
            loop = promoted(call, after=after)
            if loop is None:
                break
            assert loop.agent.status.version == "assistant/2" and loop.routes["served"] == "assistant-2"
            assert loop.agent.status.canary.previous == "assistant/1"
        assert call > 3, "the promotion makes several calls"


def test_a_suspended_agent_stops_with_its_servers_and_returns_with_its_version(loop):
    loop.cluster.patch("ToolServer", NAME, spec={"suspend": True}, annotations={})
    loop.sweep()
    assert not loop.cluster.servers and not loop.agent.holds("Ready")
    loop.cluster.patch("ToolServer", NAME, spec={"suspend": False}, annotations={})
    loop.sweep(10)
    assert loop.agent.holds("Ready") and loop.routes["served"] == "assistant-1"


def test_latencies_are_compared_by_their_logarithms(loop):
    loop.ask("assistant/2")
    loop.sweep()
    loop.chatted((80, 0), (20, 0))
    slow = loop.cluster.reported_chats.metrics["chats"]["canary"]
    slow |= {"log_seconds": 20 * math.log(4), "log_seconds_squared": 20 * math.log(4) ** 2 + 1}
    loop.sweep()
    assert "more than 1.5 times as long" in loop.agent.condition("Promoted").message


def test_times_are_those_of_the_clock(loop):
    loop.ask("assistant/2")
    loop.sweep(1)
    assert loop.agent.status.canary.since == later(loop.seconds) > NOW
