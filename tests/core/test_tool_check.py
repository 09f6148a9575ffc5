"""The check of a run's tools: each fault of a server is named in words, with its remedy and whose it is."""

from __future__ import annotations

import asyncio
import dataclasses
import email.utils
import json
import socket
import ssl
import time
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from support import loopback
from support.loopback import HITS, PATHS, WORKING, Provider, responds, verdict

from gog import catalog, tool_api
from gog.spec import ModelEndpoint, ToolsSpec
from gog.tool_check import check, diagnosis, samples
from gog.tool_check.config import CheckConfig, Target
from gog.tool_check.report import Report, Result
from gog.tool_transport import Exchange
from gog.tool_types import FailureKind, ToolFailure

HTML = b"<!DOCTYPE html><html><title>Sign in</title><body>who are you?</body></html>"
KEY = "a-key-that-nobody-may-see"
NOW = 1_800_000_000.0
CONNECTION = ConnectionKey("search.internal", 443, True, True, None, None, None)


def checked(
    handlers: Any = None,
    *,
    environment: Any = None,
    tools: Any = None,
    roles: Any = tuple(PATHS),
    now: Any = time.time,
    **config: Any,
) -> Report:
    """Checks tools on loopback that work but for `handlers`. `{url}` in the configuration is their address."""

    async def scenario() -> Report:
        async with Provider({**WORKING, **(handlers or {})}) as provider:
            fast = {"backoffSeconds": 0, "judge": {"backoffSeconds": 0}}
            body = json.dumps({"tools": {**fast, **(tools or {})}, **config}).replace("{url}", provider.url)
            made = CheckConfig.model_validate({"endpoints": dict.fromkeys(roles, provider.url), **json.loads(body)})
            return await check.check(made, environment=environment or {}, now=now)

    return asyncio.run(scenario())


def problem(tool: str, *handlers: Any, **more: Any) -> diagnosis.Problem:
    """The problem of one tool whose requests are answered so."""
    report = checked({tool: handlers}, **more)
    (found,) = [each for each in report.problems if each[0].tool == tool]
    assert report.outcome == ("failed" if found[1].is_permanent else "unavailable")
    return found[1]


def test_every_tool_of_the_catalogue_has_a_sample() -> None:
    assert set(samples.SAMPLES) >= set(catalog.TOOL_NAMES)


def test_a_tool_without_a_sample_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(samples.SAMPLES, "textSearch")
    report = checked({"textSearch": [responds(b"", 500)]})
    assert report.outcome == "passed" and any("not called" in note for each in report.results for note in each.notes)


def test_a_tool_that_works_is_shown_with_latency_version_cost_and_what_came_back() -> None:
    headers = {
        tool_api.SERVER_HEADER: "gog/0.1.0 brave",
        tool_api.COST_HEADER: "0.005",
        tool_api.VENDOR_HEADER: "brave",
        tool_api.CALLS_HEADER: "4",
        tool_api.CREDIT_HEADER: "12.5",
    }
    report = checked({"textSearch": [responds(HITS, **headers)]}, tools={"imageSearch": {"usdPerCall": 0.01}})
    assert report.outcome == "passed" and len(report.results) == 5
    rows = {each.target.name: each for each in report.results}
    search = rows["textSearch"]
    assert (search.server, search.usd, search.vendor, search.calls) == ("gog/0.1.0 brave", 0.005, "brave", 4)
    assert search.credit_usd == 12.5 and search.seconds > 0
    assert search.answer == "5 pages; first: page 0 · https://example.org/0 · by Ada"
    assert rows["judge"].answer == "Yes to a correct answer"
    assert rows["grounding"].answer == "2 candidates; best: 'ring' at (2, 2, 12, 12), score 0.90"
    assert rows["imageSearch"].usd == 0.01 and "0.0150 USD" in report.summary


def test_the_model_that_answered_is_shown() -> None:
    report = checked({"judge": [responds({"model": "qwen3-32b", **verdict("Yes")})]})
    assert [each.model for each in report.results if each.target.tool == "judge"] == ["qwen3-32b"]


def test_every_tool_is_called_once() -> None:
    async def scenario() -> dict[str, int]:
        async with Provider(WORKING) as provider:
            await check.check(CheckConfig(endpoints=dict.fromkeys(PATHS, provider.url)), environment={})
            return {tool: len(bodies) for tool, bodies in provider.requests.items()}

    assert asyncio.run(scenario()) == dict.fromkeys(PATHS, 1)


@pytest.mark.parametrize(
    ("tool", "handler", "kind", "words"),
    [
        ("judge", responds(b"no", 401), "key_missing", "JUDGE_GOG_API_KEY"),
        ("textSearch", responds(b"x", 502, **{tool_api.FAILURE_HEADER: "auth"}), "vendor_auth", "vendor's key"),
        ("textSearch", responds(b"x", 402), "no_credit", "top up"),
        ("textSearch", responds(b"x", 400, **{tool_api.FAILURE_HEADER: "refused"}), "vendor_refused", "options"),
        ("imageSearch", responds(b"", 404), "address", "endpoints.imageSearch.url"),
        ("imageSearch", responds(b"", 405), "address", "docs/backends.md"),
        (
            "imageSearch",
            responds(b"", 302, location="https://sso.example.org/"),
            "redirect",
            "endpoints.imageSearch.url",
        ),
        ("imageSearch", responds(b'{"detail": "field required"}', 422), "other_api", "docs/backends.md"),
        ("grounding", responds({"boxes": []}), "other_api", "another version"),
        ("grounding", responds(HTML, **{"content-type": "text/html"}), "html", "endpoints.grounding.url"),
        ("grounding", responds(HTML), "html", "CAPTCHA"),
        ("grounding", responds(b""), "no_body", "log"),
        ("judge", responds(verdict("No")), "wrong_verdict", "calibrate"),
        ("judge", responds(verdict("I cannot say")), "undecided", "maxTokens"),
        ("textSearch", responds({"hits": []}, **{tool_api.VENDOR_HEADER: "brave"}), "empty", "options"),
        (
            "judge",
            responds({"error": {"message": "The plain HTTP request was sent to HTTPS port"}}, 400),
            "tls",
            "https://",
        ),
    ],
)
def test_a_fault_that_would_repeat_is_the_user_s_and_has_a_remedy(
    tool: str, handler: Any, kind: str, words: str
) -> None:
    found = problem(tool, handler)
    assert (found.kind, found.is_permanent) == (kind, True)
    assert words in found.remedy


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (responds(b"", 500), "unavailable"),
        (responds(b"busy", 429), "rate_limited"),
        (loopback.reset, "connection"),
        (loopback.half, "connection"),
    ],
)
def test_a_fault_that_may_pass_is_not_the_user_s(handler: Any, kind: str) -> None:
    found = problem("textSearch", handler)
    assert (found.kind, found.is_permanent) == (kind, False)


def test_a_vendor_that_the_server_cannot_reach_is_a_matter_of_the_server_s_network() -> None:
    sentence = {"error": {"message": "serpapi: serpapi.com: the name does not resolve"}}
    found = problem("textSearch", responds(sentence, 503, **{tool_api.FAILURE_HEADER: "unreachable"}))
    assert (found.kind, found.is_permanent) == ("vendor_unreachable", False)
    assert found.what == "its server cannot reach the vendor: serpapi: serpapi.com: the name does not resolve"
    assert "DNS" in found.remedy and "status page" not in found.remedy


def test_a_page_with_many_unclosed_titles_is_diagnosed_in_linear_time() -> None:
    hostile = 12_000 * b"<title"
    begun = time.process_time()
    found = diagnosis.of_failure(
        Target("grounding", "grounding", "http://g"),
        ToolFailure("grounding", FailureKind.MALFORMED, "not JSON"),
        Exchange(200, {}, hostile[:65_536]),
        has_key=False,
    )
    assert found.kind == "html" and time.process_time() - begun < 0.2


def test_a_fault_of_a_single_request_is_no_finding() -> None:
    report = checked({"textSearch": [responds(HTML), responds(HITS)]}, tools={"attempts": 1})
    assert report.outcome == "passed", "also where the run itself would not retry"


def test_a_user_s_fault_decides_where_another_may_pass() -> None:
    report = checked({"textSearch": [responds(b"", 503)], "judge": [responds(b"", 401)]})
    assert report.outcome == "failed" and report.summary.startswith("endpoints.judge: it requires a key")
    assert "endpoints.textSearch" in report.summary


def test_a_port_on_which_nothing_listens_may_still_be_opened() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    found = asyncio.run(check.check(CheckConfig(endpoints={"judge": f"http://127.0.0.1:{port}"}), environment={}))
    (result,) = found.results
    assert result.problem is not None and (result.problem.kind, found.outcome) == ("no_connection", "unavailable")


def test_a_plain_server_behind_https_is_named() -> None:
    async def scenario() -> Report:
        async with Provider(WORKING) as provider:
            url = provider.url.replace("http://", "https://")
            return await check.check(CheckConfig(endpoints={"textSearch": url}), environment={})

    (result,) = asyncio.run(scenario()).results
    assert result.problem is not None and result.problem.kind == "tls" and "http://" in result.problem.remedy


CERTIFICATE = ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")


@pytest.mark.parametrize(
    ("error", "kind", "is_permanent"),
    [
        (aiohttp.ClientConnectorDNSError(CONNECTION, OSError(socket.EAI_NONAME, "unknown")), "dns", True),
        (aiohttp.ClientConnectorDNSError(CONNECTION, OSError(socket.EAI_AGAIN, "try again")), "dns", False),
        (aiohttp.ClientConnectorCertificateError(CONNECTION, CERTIFICATE), "tls", True),
        (aiohttp.ServerDisconnectedError(), "connection", False),
    ],
)
def test_a_failure_of_the_connection_is_told_from_the_others(error: Exception, kind: str, is_permanent: bool) -> None:
    target = Target("textSearch", "textSearch", "https://search.internal")
    failure = ToolFailure("textSearch", FailureKind.CONNECTION, str(error))
    found = diagnosis.of_failure(target, failure, Exchange(error=error), has_key=False)
    assert (found.kind, found.is_permanent) == (kind, is_permanent)


def test_an_answer_after_the_deadline_of_the_run_is_called_slow_with_a_better_deadline() -> None:
    async def late(request: Any) -> Any:
        await asyncio.sleep(0.2)
        return await responds(HITS)(request)

    found = problem("textSearch", late, tools={"textSearch": {"deadlineSeconds": 0.05}})
    assert (found.kind, found.is_permanent) == ("slow", False)
    assert "the run waits 0.05 s" in found.what and "tools.textSearch.deadlineSeconds above 0.2" in found.remedy


def test_no_answer_at_all_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "LEAST_SECONDS", 0.05)
    found = problem("textSearch", loopback.hang, tools={"textSearch": {"deadlineSeconds": 0.02}})
    assert (found.kind, found.is_permanent) == ("timeout", False) and "no answer within" in found.what


def test_a_check_reports_how_long_it_took() -> None:
    async def scenario() -> Report:
        clock = iter((100.0, 107.5))
        return await check.check(CheckConfig(endpoints={}), monotonic=lambda: next(clock))

    report = asyncio.run(scenario())
    assert report.seconds == report.as_dict()["seconds"] == 7.5


def test_a_first_call_that_loads_something_is_noted_and_repeated() -> None:
    async def late(request: Any) -> Any:
        await asyncio.sleep(0.6)
        return await responds(HITS)(request)

    report = checked({"textSearch": [late, responds(HITS)]}, tools={"textSearch": {"deadlineSeconds": 0.5}})
    assert report.outcome == "passed"
    assert [each.notes for each in report.results if each.notes] == [("its first call took 0.6 s",)]


def dated(seconds: float) -> Any:
    return responds(HITS, date=email.utils.formatdate(NOW + seconds, usegmt=True))


def test_a_clock_that_spoils_addresses_of_crops_is_the_user_s_fault_and_otherwise_a_note() -> None:
    lens = {"backends": {"imageSearch": diagnosis.LENS}}
    found = problem("imageSearch", dated(-300), roles=["imageSearch"], now=lambda: NOW, **lens)
    assert found.kind == "clock" and "300 s behind" in found.what and "NTP" in found.remedy
    report = checked({"imageSearch": [dated(300)]}, roles=["imageSearch"], now=lambda: NOW)
    assert report.outcome == "passed" and report.results[0].notes == ("its clock differs from ours by +300 s",)


def test_a_store_that_refuses_skewed_requests_is_a_matter_of_the_clock() -> None:
    refused = responds({"error": {"message": "RequestTimeTooSkewed: the difference is too large"}}, 503)
    assert problem("imageSearch", refused).kind == "clock"


def test_a_fallback_is_called_with_its_own_key_and_named_by_its_field() -> None:
    seen = []

    async def note(request: Any) -> Any:
        seen.append(request.headers.get("authorization"))
        return await responds(HITS if len(seen) < 2 else b"", 200 if len(seen) < 2 else 401)(request)

    environment = {"TEXT_SEARCH_FALLBACK_GOG_API_KEY": KEY}
    fallback = {"textSearch": {"fallback": {"url": "{url}"}}}
    report = checked({"textSearch": [note]}, environment=environment, tools=fallback, roles=["textSearch"])
    assert sorted(seen, key=str) == ["Bearer " + KEY, None]
    assert {each.target.name for each in report.results} == {"textSearch", "textSearchFallback"}


def test_the_compared_model_is_shown_the_photograph_and_its_words_come_back() -> None:
    bodies: list[Any] = []

    async def chat(request: Any) -> Any:
        bodies.append(await request.json())
        return await responds(verdict("Rear Admiral Grace Hopper."))(request)

    report = checked({"judge": [chat]}, roles=(), endpoint={"url": "{url}/v1", "model": "gpt"})
    (result,) = report.results
    assert result.answer == "Rear Admiral Grace Hopper." and report.outcome == "passed"
    image, _ = bodies[0]["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,") and bodies[0]["model"] == "gpt"


def test_a_model_that_the_server_does_not_have_is_named() -> None:
    missing = responds({"error": {"message": "The model `m` does not exist"}}, 404)
    found = problem("judge", missing, judge_model="m")
    assert found.kind == "model" and found.remedy.endswith("endpoints.judge.model")


def test_a_run_that_replays_a_recording_calls_nothing() -> None:
    report = checked(tools={"cache": {"mode": "replay-strict", "path": "answers.sqlite"}})
    assert report.results == () and report.outcome == "passed"


def test_a_refused_key_is_not_part_of_the_report() -> None:
    echo = responds({"error": {"message": f"unknown key {KEY}"}}, 403)
    report = checked({"judge": [echo]}, environment={"JUDGE_GOG_API_KEY": KEY})
    text = json.dumps(report.as_dict())
    assert report.outcome == "failed" and '"auth"' in text and KEY not in text


def test_a_key_that_no_header_can_carry_is_the_user_s_fault() -> None:
    found = problem("judge", responds(verdict("Yes")), environment={"JUDGE_GOG_API_KEY": "schlüssel"})
    assert found.kind == "key" and "JUDGE_GOG_API_KEY" in found.what


def test_on_a_cluster_the_remedy_names_the_secret() -> None:
    found = problem("judge", responds(b"", 401), on_cluster=True, secrets={"judge": "judge-key"})
    assert found.remedy == "put the key into GOG_API_KEY of the Secret judge-key"
    found = problem("judge", responds(b"", 401), on_cluster=True)
    assert "endpoints.judge.secretName" in found.remedy


def test_a_hostile_server_cannot_enlarge_the_summary() -> None:
    long = responds({"error": {"message": "x" * 100_000}}, 403)
    report = checked(dict.fromkeys(PATHS, (long,)))
    assert len(report.summary) <= 2_000 and "\n" not in report.summary


def test_names_for_programs_are_complete() -> None:
    row = Result(Target("judge", "judge", "http://j")).as_dict()
    assert row["name"] == "judge" and row["ok"] is True
    fields = {each.name for each in dataclasses.fields(Result)} - {"target"}
    assert fields | {"name", "url", "backend", "ok"} == set(row)


def test_an_endpoint_without_a_key_source_on_a_machine_is_an_environment_variable() -> None:
    config = CheckConfig(
        endpoints={}, endpoint=ModelEndpoint(url="https://api.example.org", model="m"), tools=ToolsSpec()
    )
    (target,) = check.targets(config)
    assert target.key_source == "the environment variable ENDPOINT_GOG_API_KEY" and target.title == "compared model"
