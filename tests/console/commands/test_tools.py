"""`gog tools check`: against servers that exist, and against those that it starts in front of five vendors."""

from __future__ import annotations

import json

import pytest
import yaml
from support import loopback
from support.loopback import PATHS, responds
from support.vendors import KEY, Vendors

from gog_console import cli

VENDOR_KEYS = ("SERPAPI_API_KEY", "BRAVE_API_KEY", "JINA_API_KEY", "OPENAI_API_KEY")


@pytest.fixture
def serve():
    """serve(handlers): the address of tools that work but for these."""
    with loopback.in_a_thread() as start:
        yield start


@pytest.fixture
def check(tmp_path, capsys):
    """check(endpoints, *arguments): exit code and output for a run with these endpoints."""

    def run(endpoints, *arguments, **spec):
        body = {"model": {"base": "tiny"}, "data": {"world": {"train": 8, "test": 4}}, "endpoints": endpoints, **spec}
        document = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "r"}, "spec": body}
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(document))
        return cli.main(["tools", "check", str(path), *arguments]), capsys.readouterr().out

    return run


def existing(url):
    return {tool: {"url": url} for tool in PATHS}


def test_tools_that_work_are_listed_and_the_exit_code_is_zero(serve, check):
    code, out = check(existing(serve()))
    assert code == 0 and out.count(" ok ") == 5 and "5 servers answer" in out
    assert "answer: 5 pages; first: page 0" in out and "Yes to a correct answer" in out


def test_a_key_that_is_missing_is_the_user_s_to_correct(serve, check):
    code, out = check(existing(serve({"judge": [responds(b"", 401)]})))
    assert code == 2 and "FAILED" in out
    assert "remedy: put the key into the environment variable JUDGE_GOG_API_KEY" in out


def test_a_server_that_is_down_may_come_back(serve, check):
    code, out = check(existing(serve({"textSearch": [responds(b"", 503)]})))
    assert code == 1 and "1 of 5 cannot be used; this may pass; check again later" in out


@pytest.mark.parametrize("option", [("-o", "json"), ("--json",)])
def test_the_outcome_is_there_for_programs(serve, check, option):
    code, out = check(existing(serve({"judge": [responds(b"", 402)]})), *option)
    report = json.loads(out)
    assert (code, report["outcome"]) == (2, "failed")
    rows = {row["name"]: row for row in report["tools"]}
    assert set(rows) == set(PATHS) and rows["judge"]["problem"]["kind"] == "no_credit" and rows["grounding"]["ok"]


def test_grounding_is_not_called_where_no_stage_gazes(serve, check):
    off = {stage: {"gaze": "off"} for stage in ("curate", "stratify", "grpo", "evaluate")}
    code, out = check(existing(serve({"grounding": [responds(b"", 500)]})), stages=off)
    assert code == 0 and "grounding" not in out


def test_a_run_that_replays_a_recording_has_nothing_to_check(check):
    code, out = check({}, tools={"cache": {"mode": "replay-strict", "path": "answers.sqlite"}})
    assert code == 0 and "nothing to check" in out


def test_a_stage_is_no_run(tmp_path, capsys):
    path = tmp_path / "stage.yaml"
    path.write_text("{apiVersion: gog.dev/v1alpha1, kind: Endpoint, metadata: {name: e}, spec: {role: judge}}")
    assert cli.main(["tools", "check", str(path)]) == 2 and "is a Endpoint" in capsys.readouterr().err


def test_in_a_pod_the_outcome_is_the_termination_message(serve, tmp_path, monkeypatch, capsys):
    message, config = tmp_path / "message", tmp_path / "config.yaml"
    monkeypatch.setenv("GOG_TERMINATION_LOG", str(message))
    refusing = serve({"judge": [responds(b"", 403)]})
    body = {"endpoints": {"judge": refusing}, "secrets": {"judge": "judge-key"}, "onCluster": True}
    config.write_text(json.dumps(body))
    assert cli.main(["tools", "check", "--config", str(config)]) == 0
    left = json.loads(message.read_text())
    assert left["outcome"] == "failed" and "GOG_API_KEY of the Secret judge-key" in left["message"]


# ---- servers that are started, in front of vendors


@pytest.fixture
def vendors(monkeypatch):
    for name in VENDOR_KEYS:
        monkeypatch.setenv(name, KEY)
    with Vendors() as running:
        yield running


def web_search(vendors, engine):
    """A text search by an engine, Jina's reader and a model, and a judge by the same model's vendor."""
    path = {"brave": "brave/web"}.get(engine, engine)
    reader = {"kind": "jina", "key_variable": "JINA_API_KEY", "url": f"{vendors.url}/jina"}
    reader |= {"allow": ["127.0.0.1/32"], "ports": [vendors.port]}
    model = {"kind": "openai", "url": f"{vendors.url}/v1", "model": "m", "key_variable": "OPENAI_API_KEY"}
    return {"backend": engine, "options": {"url": f"{vendors.url}/{path}", "reader": reader, "summariser": model}}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["serpapi", "brave", "searxng"])
def test_a_web_search_by_vendors_is_called_through_its_server(engine, serve, check, vendors):
    endpoints = {**existing(serve()), "textSearch": web_search(vendors, engine)}
    code, out = check(endpoints, "--json")
    (row,) = [each for each in json.loads(out)["tools"] if each["name"] == "textSearch"]
    assert code == 0 and row["server"] == f"gog/0.1.0 {engine}" and row["calls"] > 2 and row["usd"] > 0
    assert row["answer"].startswith("5 pages; first: ")
    assert {"jina", "v1"} < {each.vendor for each in vendors.asked}


@pytest.mark.slow
def test_a_vendor_s_refusal_is_told_from_a_key_that_the_server_lacks(serve, check, vendors, monkeypatch):
    endpoints = {**existing(serve()), "textSearch": web_search(vendors, "brave")}
    monkeypatch.setenv("BRAVE_API_KEY", "wrong")
    code, out = check(endpoints)
    assert code == 2 and "its vendor refuses the server's key" in out
    monkeypatch.delenv("BRAVE_API_KEY")
    code, out = check(endpoints)
    assert code == 2 and "its server does not start" in out and "BRAVE_API_KEY is not set" in out
