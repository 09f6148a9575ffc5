"""Pods of served policies are asked beside the passes, at a bounded rate, and their slowness costs one thread at most."""

from __future__ import annotations

import json

import pytest
from support.policy_pods import PolicyPods

from gog_operator.cluster import adapters
from gog_operator.cluster.bounded_http import Answer
from gog_operator.cluster.interface import Refused
from gog_operator.cluster.policy_polls import CHECK_SECONDS, FORGET_SECONDS, PolicyPolls
from gog_operator.workqueue import Key

SERVER, PODS = Key("ToolServer", "ns", "world-policy"), ("http://10.0.0.1:8080", "http://10.0.0.2:8080")


class Polls(PolicyPolls):
    """Polls of pods in memory, and the clock."""

    def __init__(self, monkeypatch):
        self.now, self.pods, self.checks, self.woken = 0.0, PolicyPods(), 0, []
        super().__init__(self.list_models, lambda: self.now, self.woken.append)
        self.tokens = []
        monkeypatch.setattr(adapters, "requester", lambda token: self.tokens.append(token) or self.pods.answer)

    def list_models(self, url, seconds):
        return json.loads(self.pods.answer(url, None).body)

    def send(self, seconds=0.0):
        self.now += seconds
        while (key := self.queue.take()[0]) is not None:
            self.checks += 1
            self.process(key)


@pytest.fixture
def polls(monkeypatch):
    return Polls(monkeypatch)


def test_a_pass_takes_the_result_of_the_last_check_and_a_changed_one_queues_another_pass(polls):
    assert polls.serves(SERVER, PODS, "grpo/9") is None
    polls.send()
    assert polls.serves(SERVER, PODS, "grpo/9") is False and polls.woken == [SERVER]
    polls.load(SERVER, PODS, "grpo/9")
    polls.send(CHECK_SECONDS)
    assert polls.serves(SERVER, PODS, "grpo/9") is True and polls.woken == [SERVER] * 2


def test_a_policy_is_asked_at_a_bounded_rate_however_often_it_is_reconciled(polls):
    for _ in range(1000):
        polls.serves(SERVER, PODS, "grpo/9")
        polls.send(0.1)
    assert polls.checks <= 1 + 100 / CHECK_SECONDS and polls.woken == [SERVER]


def test_a_policy_that_no_pass_asks_for_is_not_asked(polls):
    polls.serves(SERVER, PODS, "grpo/9")
    polls.send()
    polls.send(100)
    assert polls.checks == 1


def test_a_new_pod_or_version_is_asked_at_once(polls):
    polls.load(SERVER, PODS, "grpo/9")
    polls.send()
    assert polls.serves(SERVER, (*PODS, "http://10.0.0.3:8080"), "grpo/9") is None
    polls.send()
    assert polls.serves(SERVER, (*PODS, "http://10.0.0.3:8080"), "grpo/9") is False
    assert polls.serves(SERVER, PODS, "grpo/10") is None


def test_a_version_that_no_pod_will_load_is_reported_once_and_tried_again_later(polls, monkeypatch):
    refusing = Answer(400, b'{"error": "no such adapter"}')
    monkeypatch.setattr(
        adapters, "requester", lambda token: lambda url, body: refusing if body else polls.pods.answer(url, body)
    )
    polls.load(SERVER, PODS, "grpo/9")
    polls.send()
    with pytest.raises(Refused, match="no such adapter"):
        polls.load(SERVER, PODS, "grpo/9")
    polls.send(CHECK_SECONDS)
    assert len(polls.woken) == 1, "the pass that reported it decides when"
    polls.load(SERVER, PODS, "grpo/9")
    polls.send(CHECK_SECONDS)
    assert len(polls.woken) == 2


def test_policies_of_one_namespace_leave_a_thread_for_the_others(polls):
    for number in range(20):
        polls.serves(SERVER._replace(namespace="slow", name=f"p{number}"), PODS, "grpo/9")
    polls.serves(SERVER, PODS, "grpo/9")
    assert {polls.queue.take()[0].namespace for _ in range(3)} == {"slow", "ns"}


def test_an_error_of_one_policy_does_not_end_the_thread(polls, monkeypatch):
    monkeypatch.setattr(adapters, "requester", lambda token: 1 / 0)
    polls.load(SERVER, PODS, "grpo/9")
    polls.send()
    assert polls.queue.working() == 0


def test_policies_that_are_gone_are_forgotten(polls):
    for number in range(10):
        polls.serves(SERVER._replace(name=f"p{number}"), PODS, "grpo/9")
    polls.now += 2 * FORGET_SECONDS
    polls.serves(SERVER, PODS, "grpo/9")
    assert list(polls._policies) == [SERVER]


def test_a_version_is_loaded_with_the_token_of_its_server_which_is_never_printed(polls):
    polls.load(SERVER, PODS, "grpo/9", "secret-token")
    polls.send()
    assert polls.tokens == ["secret-token"] and "secret-token" not in repr(polls._policies)
