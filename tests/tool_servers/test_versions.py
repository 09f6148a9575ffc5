"""Versions of a policy on a server: where they come from, how they change under load, and what a restart restores.

The model only writes which weights it holds (marked_policy); HTTP, store and all between are real.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from urllib.parse import urlsplit

import pytest
from support import ports

from gog import adapters, offers, tensors
from gog import store as stores
from gog_operator.cluster import adapters as client

RAW = "/v1/completions"
MARKED = ("gog_tools.policy.server", "--backend", "marked_policy:MarkedModel")


@pytest.fixture
def pod(start, trained, gate):
    """Starts a policy server on the store."""
    return lambda *more, **env: start(
        *MARKED, "--base", "tiny", "--store", trained, *more, **{"GATE": str(gate), **env}
    )


@pytest.fixture
def marks(trained, tmp_path):
    """The text that each version writes."""
    opened = stores.open_store(json.loads(trained)["uri"])
    found = {"base": "plain"}
    for ref in ("sft/180", "grpo/120", "grpo/240", "grpo-no-gaze/120"):
        folder = adapters.fetch_servable(opened, ref, tmp_path / "expected" / offers.name_of(ref))
        weights = tensors.read(folder / adapters.WEIGHTS)
        found[offers.name_of(ref)] = str(round(float(sum(values.sum() for _, values in weights.values()))))
    assert len(set(found.values())) == len(found)
    return found


def request(server, model="policy", prompt="x"):
    """(status, version that answered, its text or the error)."""
    answer = server.post(RAW, {"model": model, "prompt": prompt})
    body = answer.json()
    return answer.status, body.get("model"), body["choices"][0]["text"] if answer.status == 200 else body["error"]


def load(server, ref):
    return server.post("/v1/load_lora_adapter", {"lora_name": offers.name_of(ref), "lora_path": ref})


def unload(server, ref):
    return server.post("/v1/unload_lora_adapter", {"lora_name": offers.name_of(ref)})


def names(server):
    return [card["id"] for card in server.get("/v1/models").json()["data"]]


# ---- where versions come from


def test_a_checkpoint_is_served_with_the_adapters_it_was_trained_on(pod, marks):
    server = pod()
    for ref in ("grpo/120", "sft/180", "grpo-no-gaze/120"):
        assert load(server, ref).status == 200
        assert request(server, offers.name_of(ref)) == (200, offers.name_of(ref), marks[offers.name_of(ref)])
    assert request(server) == request(server, "") == (200, "base", "plain")
    cards = server.get("/v1/models").json()["data"]
    assert [(card["id"], card["root"], card["parent"], card["default"]) for card in cards[:2]] == [
        ("base", "base", None, True),
        ("grpo-120", "grpo/120", "base", False),
    ]


OUTSIDE = (
    "../store/grpo/120",
    "/etc",
    "grpo",
    "../1",
    "grpo/120\n",
    "http://169.254.169.254/120",
    "s3://elsewhere/120",
)
NO_POLICY = ("grpo/999", "stratify/1", "")


def test_only_a_policy_of_the_store_is_loaded(pod):
    server = pod()
    for path in (*OUTSIDE, *NO_POLICY):
        answer = server.post("/v1/load_lora_adapter", {"lora_name": "stray", "lora_path": path})
        assert (path, answer.status) == (path, 403 if path in OUTSIDE else 400)
        assert answer.json()["error"]["message"]
    assert names(server) == ["base"]


def test_only_a_loaded_version_can_be_the_default(pod):
    server = pod()
    load(server, "sft/180")
    assert server.post("/v1/default", {"model": "grpo-120"}).status == 404
    assert server.post("/v1/default", {"model": "sft-180"}).status == 200
    assert unload(server, "sft/180").status == 409
    assert server.post("/v1/default", {"model": "base"}).status == 200
    assert unload(server, "sft/180").status == 200 and names(server) == ["base"]


def test_the_alias_of_the_default_cannot_name_a_version(pod):
    server = pod()
    body = {"lora_name": "policy", "lora_path": "sft/180"}
    assert server.post("/v1/load_lora_adapter", body).status == 409
    refused = pod("--name", "policy")
    assert refused.process.wait(60) == 2 and "--name" in refused.process.stderr.read()


# ---- change under load


def test_a_request_is_answered_by_the_version_it_names_while_versions_change(pod, marks, wait_until):
    server = pod()
    load(server, "grpo/120")
    server.post("/v1/default", {"model": "grpo-120"})
    answers, done = [], threading.Event()

    def hammer(model):
        while not done.is_set():
            answers.append((model, request(server, model)))

    threads = [threading.Thread(target=hammer, args=(model,)) for model in ("grpo-120", "policy", "policy")]
    for thread in threads:
        thread.start()

    def some_more():
        """Waits until every thread has sent another request."""
        wanted = len(answers) + 30
        wait_until(lambda: len(answers) >= wanted)

    try:
        some_more()
        load(server, "grpo/240")
        some_more()
        server.post("/v1/default", {"model": "grpo-240"})
        before_any = len(answers) + len(threads)
        some_more()
        assert unload(server, "grpo/120").status == 200
        some_more()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    for model_name, (status, version, text) in answers:
        assert (status == 200 and text == marks[version]) or (model_name == "grpo-120" and status == 404)
        assert model_name == "policy" or status == 404 or version == model_name
    assert {version for model_name, (_, version, _) in answers[before_any:] if model_name == "policy"} == {"grpo-240"}
    assert any(status == 404 for _, (status, *_) in answers)


def test_a_request_under_way_is_finished_by_its_version_after_an_unload(pod, marks, held):
    server, answers = pod(), []
    load(server, "grpo/120")
    request_thread = threading.Thread(target=lambda: answers.append(request(server, "grpo-120", "wait")))
    request_thread.start()
    with held():
        assert unload(server, "grpo/120").status == 200
        assert names(server) == ["base"] and request(server, "grpo-120")[0] == 404
        assert load(server, "grpo/120").status == 409
        assert not answers
    request_thread.join(60)
    assert answers == [(200, "grpo-120", marks["grpo-120"])]


def test_a_load_continues_when_its_client_disconnects(pod, held, wait_until):
    server = pod(SLOW="grpo-120")
    with client_of(server, "grpo/120") as disconnect, held():
        disconnect()
        assert names(server) == ["base"] and server.get("/readyz").status == 200
    wait_until(lambda: "grpo-120" in names(server))


def test_the_failure_of_an_abandoned_load_is_returned_to_the_next_client(pod, held, tmp_path, wait_until):
    server, answers = pod(SLOW="grpo-240", REFUSES="grpo-240", TMPDIR=str(tmp_path)), []
    with client_of(server, "grpo/240") as disconnect, held():
        disconnect()
        assert names(server) == ["base"]
        assert list(tmp_path.glob("gog-serve-*/*-grpo-240"))
    wait_until(lambda: not list(tmp_path.glob("gog-serve-*/*")))  # the last step of a failed load
    request_thread = threading.Thread(target=lambda: answers.append(load(server, "grpo/240")), daemon=True)
    request_thread.start()
    request_thread.join(30)  # another load would wait at the gate for ever
    assert answers and answers[0].status == 400 and "no room" in answers[0].json()["error"]["message"]


@contextlib.contextmanager
def client_of(server, ref):
    """A client that asks for a load and may disconnect."""
    body = json.dumps({"lora_name": offers.name_of(ref), "lora_path": ref})
    with contextlib.closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)) as connection:
        connection.request("POST", "/v1/load_lora_adapter", body)
        yield connection.close


# ---- restart


@pytest.mark.parametrize("named", ["grpo/120", "@file"])
def test_a_restarted_pod_is_not_ready_before_it_serves_its_version(pod, marks, held, tmp_path, wait_until, named):
    if named == "@file":
        (tmp_path / "version").write_text("grpo/120\n")
        named = f"@{tmp_path / 'version'}"
    port = ports.free(1)[0]
    server = pod("--version", named, "--port", str(port), SLOW="grpo-120")
    server._url = f"http://127.0.0.1:{port}"
    with held():
        assert server.get("/healthz").status == 200
        assert server.get("/readyz").status == 503 and not server.ready_file.exists()
        assert server.get("/v1/models").status == 503
        assert server.post(RAW, {"model": "policy", "prompt": "x"}).status == 503
    wait_until(lambda: server.get("/readyz").status == 200, process=server.process)
    assert request(server) == request(server, "grpo-120") == (200, "grpo-120", marks["grpo-120"])


@pytest.mark.parametrize("version", ["grpo/999", "stratify/1", "../x", "@/nowhere"])
def test_a_pod_whose_version_cannot_be_served_exits_with_the_reason(pod, version):
    server = pod("--version", version)
    assert server.process.wait(60) == 2
    error = server.process.stderr.read()
    assert error.startswith("gog serve policy: ") and error.count("\n") == 1 and not server.ready_file.exists()


def test_sigterm_ends_a_server_that_is_still_loading(pod, held):
    port = ports.free(1)[0]
    server = pod("--version", "grpo/120", "--port", str(port), SLOW="grpo-120")
    with held():
        server.process.terminate()
        assert server.process.wait(60) == 0


# ---- the operator's side, against real servers


def test_pods_are_switched_once_all_have_the_version_and_older_versions_are_unloaded(pod, marks):
    pods = [pod(), pod()]
    urls = [server.url for server in pods]
    for ref in ("sft/180", "grpo/120", "grpo/240"):
        assert client.ensure_version(urls, ref, client.requester()).state == "done"
        for server in pods:
            name = offers.name_of(ref)
            assert request(server) == (200, name, marks[name])
    assert [names(server) for server in pods] == [["base", "grpo-120", "grpo-240"]] * 2
    assert client.ensure_version(urls, "", client.requester()).state == "done"
    assert request(pods[0]) == (200, "base", "plain")


def test_no_pod_is_switched_to_a_version_that_one_pod_cannot_load(pod):
    pods = [pod(), pod(REFUSES="grpo-240")]
    urls = [server.url for server in pods]
    assert client.ensure_version(urls, "grpo/120", client.requester()).state == "done"
    outcome = client.ensure_version(urls, "grpo/240", client.requester())
    assert outcome.state == "failed" and "no room" in outcome.message and urls[1] in outcome.message
    assert {request(server)[1] for server in pods} == {"grpo-120"}


def test_a_hanging_pod_is_waited_for_no_longer_than_the_timeout(pod, held):
    server, short_client = pod(SLOW="grpo-120"), client.requester(seconds=0.2)
    assert client.ensure_version([server.url], "grpo/120", short_client).state == "waiting"
    with held():
        assert client.ensure_version([server.url], "grpo/120", short_client).state == "waiting"
        assert names(server) == ["base"]


# ---- API key


def test_a_key_is_required_everywhere_but_on_the_pages_of_probes(pod):
    server = pod(GOG_API_KEY="s3cret")
    assert server.url
    for path in ("/healthz", "/readyz", "/metrics"):
        assert server.get(path).status == 200
    for key in ("", "s3cre", "s3cret!", "é"):
        assert server.request("GET", "/v1/models", None, {"authorization": f"Bearer {key}".encode()}).status == 401
    assert load(server, "grpo/120").status == 401
    server.key = "s3cret"
    assert load(server, "grpo/120").status == 200
    outcome = client.ensure_version([server.url], "grpo/120", client.requester())
    assert outcome.state == "failed" and "Secret" in outcome.message
    assert client.ensure_version([server.url], "grpo/120", client.requester("s3cret")).state == "done"
