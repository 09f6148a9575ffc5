"""How servers start, report health, and stop."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import urllib.request
from urllib.parse import urlsplit

import pytest

from gog import dataset_zip, tool_api
from gog import store as stores
from gog.errors import UserError
from gog_tools.agent import server as agent
from gog_tools.grounding import server as grounding
from gog_tools.judge import server as judge
from gog_tools.policy import server as policy
from gog_tools.search import server as search
from gog_tools.serving import middleware, process

HEAVY = ("torch", "transformers", "kserve", "boto3", "botocore", "kubernetes")


def test_the_ready_file_holds_the_address_and_the_process_id(servers):
    ready = json.loads((servers.judge.url and servers.judge.ready_file).read_text())
    assert ready["pid"] == servers.judge.process.pid
    assert servers.judge.get("/healthz").status == 200


@pytest.mark.parametrize("name", ["grounding", "image_search", "text_search", "judge", "policy"])
def test_every_server_answers_health_checks_and_counts_requests(servers, name):
    server = getattr(servers, name)
    assert server.get("/healthz").json() == {"status": "ok"}
    assert b"gog_server_requests_total{outcome=" in server.get("/metrics").body


def test_a_port_in_use_is_reported_in_one_line(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code = judge.main(["--port", str(taken.getsockname()[1])])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and "in use" in error and "--port 0" in error


@pytest.mark.parametrize(
    ("server", "option", "value"),
    [
        *((grounding, "--batch-size", value) for value in ("0", "-3", "1.5", "many", "100000")),
        *((grounding, "--batch-wait-ms", value) for value in ("nan", "-5", "inf", "soon")),
        *((judge, "--drain-seconds", value) for value in ("-1", "1e9")),
        *((judge, "--timeout-seconds", value) for value in ("-1", "nan")),
        *((policy, "--batch-size", value) for value in ("0", "-1")),
        *((policy, "--max-pixels", value) for value in ("0", "-1")),
        *((agent, "--chats", value) for value in ("0", "-1")),
        *((agent, "--seconds", value) for value in ("0", "nan")),
        *((agent, "--rate-per-minute", value) for value in ("-1", "inf")),
    ],
)
def test_a_number_with_which_a_server_could_not_work_is_refused_at_the_start_by_its_option(
    server, option, value, capsys
):
    assert server.main([option, value]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"error: argument {option}: must be a " in last and f", not {value!r}" in last


def test_the_help_of_the_grounding_server_says_which_option_counts_for_the_networks(capsys):
    assert grounding.main(["--help"]) == 0
    assert "grounding-dino and owlv2 do, from the option batch" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_missing_dataset_is_reported_with_its_file(capsys, tmp_path, kind):
    assert search.main([kind, "--data", str(tmp_path)]) == 2
    assert ".jsonl" in capsys.readouterr().err


def test_a_broken_line_of_a_dataset_is_reported_with_its_number(capsys, tmp_path):
    (tmp_path / "corpus.jsonl").write_text('{"title": "a", "text": "b"}\n{"title": 3}\n')
    assert search.main(["text", "--data", str(tmp_path)]) == 2
    assert "corpus.jsonl:2" in capsys.readouterr().err


@pytest.mark.parametrize("text", ['{"rate": 2}', "not json", '{"kinds": ["earthquake"]}'])
def test_an_invalid_failure_injection_is_refused(capsys, text):
    assert judge.main(["--failures", text]) == 2
    assert "--failures" in capsys.readouterr().err


def test_unknown_options_are_refused_and_help_is_not_an_error(capsys):
    assert judge.main(["--colour", "red"]) == 2
    assert judge.main(["--help"]) == 0
    assert "--ready-file" in capsys.readouterr().out


def test_sigterm_lets_a_request_in_flight_finish(start, gate, held, wait_until):
    server = start("gate_app", "--gate", str(gate))
    answers = []
    request_thread = threading.Thread(target=lambda: answers.append(server.post("/", {})))
    assert server.url
    request_thread.start()
    with held():
        server.process.terminate()
        wait_until(lambda: not accepts_connections(server.url))
    request_thread.join(30)
    assert answers[0].body == b"done"
    assert server.process.wait(30) == 0


def test_sigterm_waits_at_most_the_drain_time_for_a_request_that_does_not_end(start, gate, held):
    server = start("gate_app", "--gate", str(gate), "--drain-seconds", "1")
    request_thread = threading.Thread(target=lambda: post_and_ignore_failure(server))
    assert server.url
    request_thread.start()
    with held():
        server.process.terminate()
        assert server.process.wait(60) == 0
    request_thread.join(60)


def post_and_ignore_failure(server):
    with contextlib.suppress(OSError, http.client.HTTPException):
        server.post("/", {})


def test_a_dataset_is_fetched_from_a_store_into_a_folder_that_is_removed_with_the_server(start, world, tmp_path):
    dataset_zip.pack(world, tmp_path / dataset_zip.FILE)
    store = stores.open_store((tmp_path / "store").as_uri())
    store.publish(dataset_zip.KEY, 1, {dataset_zip.FILE: tmp_path / dataset_zip.FILE})
    address, scratch = (tmp_path / "store").as_uri(), tmp_path / "scratch"
    scratch.mkdir()
    options = ("--data", address, "--store", json.dumps({"uri": address}))
    server = start("gog_tools.search.server", "text", *options, TMPDIR=str(scratch))
    assert server.post(tool_api.TEXT_SEARCH_PATH, {"query": "t042"}).json()["hits"][0]["title"] == "t042"
    assert list(scratch.iterdir())
    assert server.stop()[0] == 0
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("text", ["{}", "no json", '{"uri": "ftp://x"}', '{"uri": "file:///x", "password": "x"}'])
def test_an_invalid_store_is_refused(capsys, text):
    assert search.main(["text", "--data", "s3://bucket/prefix", "--store", text]) == 2
    assert "--store" in capsys.readouterr().err


def test_readiness_has_a_page_of_its_own(servers):
    assert servers.judge.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("module", ["judge", "search", "grounding", "policy"])
def test_no_server_imports_torch_before_it_answers_health_checks(module):
    program = f"import sys, gog_tools.{module}.server; sys.exit(any(name in sys.modules for name in {HEAVY!r}))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_an_unhandled_error_keeps_the_clients_connection_open(start, gate):
    server = start("gate_app", "--gate", str(gate))
    with contextlib.closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)) as connection:
        for path, status in (("/break", 500), ("/break", 500), ("/healthz", 200)):
            connection.request("POST" if status == 500 else "GET", path, b"")
            response = connection.getresponse()
            response.read()
            assert response.status == status and not response.will_close
    code, errors = server.stop()
    assert code == 0 and "broken on purpose" in errors


def test_a_body_that_is_too_large_is_refused_before_it_is_read(servers):
    with contextlib.closing(http.client.HTTPConnection(urlsplit(servers.judge.url).netloc, timeout=30)) as connection:
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("content-length", str(middleware.MAX_BODY + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_a_body_without_a_length_is_refused(servers):
    with contextlib.closing(http.client.HTTPConnection(urlsplit(servers.judge.url).netloc, timeout=30)) as connection:
        connection.request("POST", "/v1/chat/completions", iter([b"{}"]), encode_chunked=True)
        assert connection.getresponse().status == 411


def test_a_server_ends_with_the_process_that_started_it(tmp_path, wait_until):
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "gog_tools.judge.server", "--ready-file", str(ready), "--exit-with-parent"]
    starter = f"import subprocess, sys; subprocess.Popen({command!r}); sys.stdin.read()"
    parent = subprocess.Popen([sys.executable, "-c", starter], stdin=subprocess.PIPE)
    wait_until(ready.exists)
    url = json.loads(ready.read_text())["url"]
    assert accepts_connections(url)
    parent.kill()
    parent.wait()
    wait_until(lambda: not accepts_connections(url))


def accepts_connections(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), 5).close()
    except OSError:
        return False
    return True


def test_a_key_is_used_without_the_white_space_around_it(start):
    server = start("gog_tools.judge.server", GOG_API_KEY="  s3cret\n")
    server.key = "s3cret"
    assert server.get("/v1/models").status == 200
    server.key = "other"
    assert server.get("/v1/models").status == 401


def test_a_key_that_no_header_can_carry_is_refused_at_start_without_being_shown(start):
    server = start("gog_tools.judge.server", GOG_API_KEY="s3\ncret")
    assert server.process.wait(60) == 2
    error = server.process.stderr.read()
    assert error.count("\n") == 1 and "GOG_API_KEY" in error and "cret" not in error


def test_metrics_with_a_port_of_their_own_are_not_on_that_of_the_tool():
    page = process.serve_metrics({process.METRICS_PORT: "0"}, "127.0.0.1")
    assert page is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{page.server_port}/metrics", timeout=10) as answer:
        assert b"gog_server_requests_total" in answer.read()
    page.shutdown()
    page.server_close()
    apart, together = (middleware.Middleware("judge", has_metrics=each) for each in (False, True))
    assert [status_of(each, "/metrics") for each in (apart, together)] == [503, 200]


def test_without_a_port_of_their_own_metrics_have_no_server():
    assert process.serve_metrics({}, "127.0.0.1") is None


def test_a_port_of_metrics_in_use_is_reported_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(UserError, match=f"GOG_SERVER_METRICS_PORT={port}: cannot listen"):
            process.serve_metrics({process.METRICS_PORT: port}, "127.0.0.1")


def status_of(layer, path):
    """The status of a GET request to an ASGI layer."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(layer({"type": "http", "path": path, "method": "GET", "headers": []}, receive, send))
    return sent[0]["status"]
