"""Loading a version into pods: the order of calls, and the state after any of them fails."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field

import pytest

from gog import store
from gog.errors import UserError
from gog_operator.cluster import adapters
from gog_operator.cluster.bounded_http import Answer

A, B = "http://10.0.0.1:8080", "http://10.0.0.2:8080"
GRPO, NAME = "grpo/120", "grpo-120"


@dataclass
class FakePod:
    """State and behaviour of a policy server. vllm: no default version, paths instead of checkpoints."""

    vllm: bool = False
    loaded: list[str] = field(default_factory=list)
    default: str = "base"
    refusal: Answer | None = None
    refused_fetch: Answer | None = None
    fetched: list[str] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, path, body):
        name = (body or {}).get("lora_name") or (body or {}).get("model") or ""
        self.calls.append((path, name))
        if path == adapters.MODELS:
            return answer({"data": [self.card(name) for name in ["base", *self.loaded]]})
        if path == adapters.LOAD:
            return self.load(name, body["lora_path"])
        if path.startswith("/adapters/") and self.vllm:
            self.fetched.append(body["ref"])
            return self.refused_fetch or answer({"path": f"/adapters/{path.rpartition('/')[2]}"})
        if path == adapters.COMPLETIONS and name in ["base", *self.loaded]:
            return answer({"model": name})
        if path == adapters.DEFAULT and name in ["base", *self.loaded] and not self.vllm:
            self.default = name
            return Answer(200, b"ok")
        if path == adapters.UNLOAD and name in self.loaded:
            assert name != self.default
            self.loaded.remove(name)
            return Answer(200, b"ok")
        return answer({"detail": "Not Found"}, 404)

    def card(self, name):
        return (
            {"id": name, "owned_by": "vllm"}
            if self.vllm
            else {"id": name, "owned_by": "gog", "default": name == self.default}
        )

    def load(self, name, path):
        if self.refusal:
            return self.refusal
        if name in self.loaded:
            return answer({"error": {"message": f"{name} has already been loaded"}}, 400 if self.vllm else 409)
        assert path == (f"/adapters/{name}" if self.vllm else name[::-1].replace("-", "/", 1)[::-1])
        self.loaded.append(name)
        return Answer(200, b"Success")


def answer(body, status=200):
    return Answer(status, json.dumps(body).encode())


class Cluster:
    """Pods by address; `broken(number of the call, url)` may raise before (False) or after (True) it took effect."""

    def __init__(self, **pods):
        self.pods = {A: pods["a"], **({B: pods["b"]} if "b" in pods else {})}
        self.broken = lambda number, after: None
        self.calls, self.lock = 0, threading.Lock()

    def request(self, url, body):
        url = url.replace(":8081/", ":8080/")  # the receiver in the same pod
        with self.lock:
            address = next(each for each in self.pods if url.startswith(each))
            self.calls += 1
            number = self.calls
            if (answer := self.broken(number, False)) is not None:
                return answer
            real = self.pods[address].answer(url.removeprefix(address), body)
            broken = self.broken(number, True)
            return real if broken is None else broken

    def ensure(self, version=GRPO, fetch=None):
        return adapters.ensure_version(list(self.pods), version, self.request, fetch=fetch)


def test_no_pod_switches_before_every_pod_has_generated_a_token_with_the_version():
    cluster = Cluster(a=FakePod(), b=FakePod())
    order = []
    for pod in cluster.pods.values():
        pod.calls = order
    assert cluster.ensure().state == "done"
    paths = [path for path, _ in order]
    assert paths.index(adapters.DEFAULT) > max(i for i, path in enumerate(paths) if path == adapters.COMPLETIONS)
    assert paths.index(adapters.COMPLETIONS) > max(i for i, path in enumerate(paths) if path == adapters.LOAD)
    assert [pod.default for pod in cluster.pods.values()] == [NAME, NAME]


def test_pods_that_serve_the_version_receive_one_read_each():
    cluster = Cluster(a=FakePod(), b=FakePod())
    cluster.ensure()
    for pod in cluster.pods.values():
        pod.calls.clear()
    assert cluster.ensure().state == "done"
    assert [pod.calls for pod in cluster.pods.values()] == [[(adapters.MODELS, "")]] * 2


def test_a_restarted_pod_loads_the_version_again():
    cluster = Cluster(a=FakePod(), b=FakePod())
    cluster.ensure()
    cluster.pods[B] = FakePod()
    assert cluster.ensure().state == "done" and cluster.pods[B].default == NAME


def test_the_previous_version_and_foreign_adapters_stay_loaded():
    cluster = Cluster(a=FakePod(loaded=["foreign", "sft-180", "grpo-40", "grpo-80"], default="grpo-80"))
    assert cluster.ensure().state == "done"
    assert cluster.pods[A].loaded == ["foreign", "grpo-80", NAME]


def test_vllm_receives_a_path_and_no_default_version():
    cluster = Cluster(a=FakePod(vllm=True, loaded=["grpo-40", "grpo-80"]))
    assert cluster.ensure().state == "done"
    calls = [path for path, _ in cluster.pods[A].calls]
    assert adapters.DEFAULT not in calls and adapters.COMPLETIONS in calls
    assert cluster.pods[A].loaded == ["grpo-80", NAME] and cluster.pods[A].fetched == [GRPO]


def test_a_vllm_of_this_machine_reads_what_the_caller_fetches_and_needs_no_receiver():
    cluster, fetched = Cluster(a=FakePod(vllm=True)), []

    def fetch(ref):
        fetched.append(ref)
        return f"/adapters/{ref.replace('/', '-')}"

    assert cluster.ensure("grpo/120 grpo/80", fetch).state == "done"
    assert sorted(cluster.pods[A].loaded) == [NAME, "grpo-80"] and sorted(fetched) == [GRPO, "grpo/80"]
    assert cluster.pods[A].fetched == []


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (store.Unavailable("no route to the bucket"), "waiting", "cannot fetch grpo/120: no route to the bucket"),
        (UserError("holds no adapter", where="grpo/120"), "failed", "grpo/120: holds no adapter"),
    ],
)
def test_a_version_that_cannot_be_fetched_here_is_retried_only_where_the_store_is_away(error, state, message):
    def fetch(ref):
        raise error

    cluster = Cluster(a=FakePod(vllm=True))
    outcome = cluster.ensure(fetch=fetch)
    assert (outcome.state, outcome.message) == (state, message) and cluster.pods[A].loaded == []


@pytest.mark.parametrize(("status", "state"), [(503, "waiting"), (404, "waiting"), (400, "failed")])
def test_a_receiver_that_cannot_fetch_a_checkpoint_says_so_and_no_pod_is_asked_to_load_it(status, state):
    refusal = answer({"error": {"message": "checkpoint grpo/120 is corrupt"}}, status)
    cluster = Cluster(a=FakePod(vllm=True, refused_fetch=refusal))
    outcome = cluster.ensure()
    assert outcome.state == state and "cannot fetch grpo/120" in outcome.message and "corrupt" in outcome.message
    assert cluster.pods[A].loaded == []


def test_a_vllm_without_runtime_loading_differs_from_a_missing_adapter():
    closed = Cluster(a=FakePod(vllm=True, refusal=answer({"detail": "Not Found"}, 404))).ensure()
    assert closed.state == "failed" and "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in closed.message
    missing = answer({"error": {"type": "NotFoundError", "message": "No adapter found for /adapters/grpo-120"}}, 404)
    later = Cluster(a=FakePod(vllm=True, refusal=missing)).ensure()
    assert later.state == "waiting" and "No adapter found" in later.message


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (400, "failed"),
        (401, "failed"),
        (403, "failed"),
        (409, "waiting"),
        (429, "waiting"),
        (500, "waiting"),
        (503, "waiting"),
    ],
)
def test_a_transient_refusal_is_retried_and_a_permanent_one_is_not(status, state):
    sentence = "grpo-120: " + "x" * 9
    cluster = Cluster(a=FakePod(), b=FakePod(refusal=answer({"error": {"message": sentence}}, status)))
    outcome = cluster.ensure()
    assert outcome.state == state and B in outcome.message and sentence in outcome.message
    assert {pod.default for pod in cluster.pods.values()} == {"base"}


def test_without_pods_the_load_waits():
    assert adapters.ensure_version([], GRPO, lambda url, body: pytest.fail("a pod was called")).state == "waiting"


def test_a_pod_that_answers_with_another_version_never_switches():
    cluster = Cluster(a=FakePod())
    real = cluster.pods[A].answer
    cluster.pods[A].answer = lambda path, body: (
        answer({"model": "base"}) if path == adapters.COMPLETIONS else real(path, body)
    )
    assert cluster.ensure().state == "failed" and cluster.pods[A].default == "base"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data": []}', b'{"data": [1]}', b'{"data": [{"id": "x"}]}'])
def test_a_pod_without_a_policy_server_is_awaited(body):
    outcome = adapters.ensure_version([A], GRPO, lambda url, sent: Answer(200, body))
    assert outcome.state == "waiting" and A in outcome.message


def resets():
    raise ConnectionResetError("reset by peer")


def hangs():
    raise TimeoutError("timed out")


FAULTS = [resets, hangs, lambda: Answer(500, b"oops"), lambda: Answer(503, b"starting"), lambda: Answer(429, b"")]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fault", range(len(FAULTS)))
def test_after_a_failure_of_any_call_the_next_pass_reaches_the_same_state(fault, after):
    def fresh():
        old = ["sft-180", "grpo-80"]
        return Cluster(a=FakePod(loaded=[*old], default="grpo-80"), b=FakePod(loaded=[*old], default="grpo-80"))

    whole = fresh()
    assert whole.ensure().state == "done"
    for place in range(1, whole.calls + 1):
        cluster = fresh()
        cluster.broken = lambda n, late, place=place: FAULTS[fault]() if n == place and late == after else None
        first = cluster.ensure()
        assert first.state == "waiting", (place, first)
        serving = {pod.default for pod in cluster.pods.values()}
        assert serving == {"grpo-80"} or all(NAME in pod.loaded for pod in cluster.pods.values())
        cluster.broken = lambda n, late: None
        assert cluster.ensure().state == "done"
        assert [(pod.loaded, pod.default) for pod in cluster.pods.values()] == [(["grpo-80", NAME], NAME)] * 2
