"""The tools and the judge over real HTTP, served in this process by handlers that fail in many ways."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from support.builders import FakeSession, answer, gaze, ground, make_image, make_question, text_search
from support.loopback import (
    HITS,
    WORKING,
    Handler,
    Provider,
    detections,
    half,
    hang,
    piecemeal,
    reset,
    responds,
    verdict,
    with_toolbox,
)

from gog import behaviour, images, judging, metrics, regions, rewards, tool_api, tool_client, tool_transport
from gog.agent import Episode
from gog.calls import recording_file
from gog.calls.recording import Recording
from gog.errors import UserError
from gog.spec import AgentSettings, ToolsSpec
from gog.tool_client import Toolbox
from gog.tool_types import FailureKind, Reply
from gog.trajectory import Trajectory


def search(handlers: Sequence[Handler], **limits: Any) -> Reply[Sequence[tool_api.SearchHit]]:
    """One text search served by `handlers`."""

    async def use(tools: Toolbox, provider: Provider) -> Reply[Sequence[tool_api.SearchHit]]:
        return await tools.search_text("who made the ring?")

    return with_toolbox({"textSearch": handlers}, use, **limits)


FAILURES = {
    "not JSON": (responds(b"<html>busy</html>"), FailureKind.MALFORMED),
    "empty": (responds(b""), FailureKind.MALFORMED),
    "another shape": (responds({"results": []}), FailureKind.MALFORMED),
    "a field too many": (responds({"hits": [], "advertisement": 1}), FailureKind.MALFORMED),
    "429": (responds(b"slow down", 429), FailureKind.RATE_LIMITED),
    "503 with a time": (responds(b"", 503, **{"retry-after": "0"}), FailureKind.RATE_LIMITED),
    "500": (responds(b"oops", 500), FailureKind.SERVER_ERROR),
    "503": (responds(b"", 503), FailureKind.SERVER_ERROR),
    "408": (responds(b"", 408), FailureKind.SERVER_ERROR),
    "reset": (reset, FailureKind.CONNECTION),
    "half an answer": (half, FailureKind.CONNECTION),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_retried_and_has_no_effect_when_the_next_attempt_works(name: str) -> None:
    reply = search([FAILURES[name][0], responds(HITS)])
    assert reply.failure is None and reply.attempts == 2
    assert [hit.title for hit in reply.unwrap()] == [f"page {n}" for n in range(5)]


def test_what_is_not_http_is_quoted_in_one_line() -> None:
    async def not_http(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"SSH-2.0 busy\r\n\r\n")
        request.transport.close()
        return await hang(request)

    failure = search([not_http], attempts=1).failure
    assert failure is not None and failure.kind is FailureKind.CONNECTION
    assert "SSH-2.0" in failure.message and failure.message.isprintable()


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_that_persists_is_typed(name: str) -> None:
    handler, kind = FAILURES[name]
    reply = search([handler], attempts=2)
    assert reply.failure is not None
    assert (reply.failure.tool, reply.failure.kind, reply.attempts) == ("textSearch", kind, 2)


@pytest.mark.parametrize("status", [400, 404, 413, 302])
def test_a_refused_request_is_not_sent_again(status: int) -> None:
    reply = search([responds(b"no such thing", status, location="/elsewhere")])
    assert reply.failure is not None and reply.attempts == 1
    assert (reply.failure.kind, reply.failure.message) == (FailureKind.REFUSED, f"HTTP {status}: no such thing")


@pytest.mark.parametrize(
    ("status", "kind"), [(401, FailureKind.AUTH), (403, FailureKind.AUTH), (402, FailureKind.NO_CREDIT)]
)
def test_a_closed_account_is_a_failure_of_its_own_kind_and_is_not_asked_again(status: int, kind: FailureKind) -> None:
    reply = search([responds(b"no", status)])
    assert reply.failure is not None and (reply.failure.kind, reply.attempts) == (kind, 1)


@pytest.mark.parametrize(
    ("status", "header", "kind"),
    [
        (502, "auth", FailureKind.AUTH),
        (402, "no_credit", FailureKind.NO_CREDIT),
        (429, "rate_limited", FailureKind.RATE_LIMITED),
        (429, "No_Credit ", FailureKind.NO_CREDIT),
        (503, "unavailable", FailureKind.SERVER_ERROR),
        (400, "refused", FailureKind.REFUSED),
        (500, "something newer", FailureKind.SERVER_ERROR),
    ],
)
def test_a_failure_that_the_server_names_takes_precedence_over_its_status(
    status: int, header: str, kind: FailureKind
) -> None:
    reply = search([responds(b"", status, **{"X-GoG-Failure": header})], attempts=1)
    assert reply.failure is not None and reply.failure.kind is kind


def test_a_hanging_server_costs_one_deadline_per_attempt() -> None:
    reply = search([hang, responds(HITS)], deadline_seconds=0.4)
    assert reply.failure is None and reply.attempts == 2
    assert 0.4 <= reply.seconds < 5


def test_an_unreachable_server_is_a_connection_failure() -> None:
    async def scenario() -> Reply[Any]:
        async with Provider(WORKING) as provider:
            address = provider.url
        async with Toolbox({"textSearch": address}, ToolsSpec(attempts=2, backoff_seconds=0)) as tools:
            return await tools.search_text("ring")

    reply = asyncio.run(scenario())
    assert reply.failure is not None and reply.failure.kind is FailureKind.CONNECTION


def test_a_retry_waits_for_as_long_as_the_server_requests() -> None:
    reply = search([responds(b"", 429, **{"retry-after": "0.15"}), responds(HITS)])
    assert reply.attempts == 2 and reply.seconds >= 0.15
    late = search([responds(b"", 429, **{"retry-after": "3600"}), responds(HITS)])
    assert late.failure is not None and late.attempts == 1


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": DATE}, 30.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 07:27:15 GMT"}, 45.0),
        ({"retry-after": DATE, "date": "Wed, 21 Oct 2026 07:28:15 GMT"}, 0.0),
        ({"retry-after": DATE, "date": "yesterday"}, 30.0),
        ({"retry-after": "Wed, 99 Oct 2026 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
def test_the_time_to_wait_is_read_from_seconds_and_from_a_date(
    headers: Mapping[str, str], seconds: float | None
) -> None:
    half_a_minute_before = datetime(2026, 10, 21, 7, 27, 30, tzinfo=UTC).timestamp()
    assert tool_transport.retry_after(headers, lambda: half_a_minute_before) == seconds


@pytest.mark.parametrize("asked", ["soon", "", "-1", "²"])
def test_an_unreadable_retry_after_falls_back_to_the_backoff(asked: str) -> None:
    assert search([responds(b"", 429, **{"retry-after": asked}), responds(HITS)]).attempts == 2


@pytest.mark.parametrize("asked", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_server_that_asks_for_no_time_is_not_asked_at_once(asked: str) -> None:
    limited = responds(b"", 429, **{"Retry-After": asked})
    reply = search([limited, responds(HITS)], backoff_seconds=0.2)
    assert reply.failure is None and reply.seconds >= 0.1


@pytest.mark.parametrize("asked", ["9" * 400, "Wed, 21 Oct 9999 07:28:00 GMT"])
def test_a_server_that_asks_for_ages_asks_for_a_day(asked: str) -> None:
    reply = search([responds(b"", 429, **{"Retry-After": asked})])
    assert reply.failure is not None and reply.failure.retry_after == 86_400


def test_a_cost_that_cannot_be_is_not_believed() -> None:
    replies = [search([responds(HITS, **{"X-GoG-Cost-USD": cost})]) for cost in ("1e308", "nan", "-1", "free")]
    assert [(reply.failure, reply.usd) for reply in replies] == [(None, 0.0)] * 4


def test_an_answer_that_repeats_our_key_is_read_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXT_SEARCH_GOG_API_KEY", "open sesame")
    (hit,) = search([responds({"hits": [{"title": "you sent open sesame"}]})]).unwrap()
    assert hit.title == "you sent [redacted]"


def test_an_answer_in_pieces_is_read_to_its_end() -> None:
    assert len(search([piecemeal]).unwrap()) == 5
    long = {"hits": [{"title": "long", "text": "x" * 3_000_000}]}
    assert len(search([responds(long)]).unwrap()[0].text) == 3_000_000


def test_an_answer_beyond_the_size_limit_is_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_client, "MAX_TEXT_BYTES", 1000)
    reply = search([responds({"hits": [{"title": "x" * 2000}]})], attempts=1)
    assert reply.failure is not None and reply.failure.kind is FailureKind.MALFORMED
    assert reply.failure.message == "the answer is longer than 1,000 bytes"


@pytest.mark.parametrize(
    "body",
    [
        b'{"hits": [' + b"[]," * 50_000 + b"[]]}",
        b"{" + b'"a":1,' * 50_000 + b'"b":1}',
        b'"' + b"\\u0041" * 400_000 + b'"',
    ],
    ids=["lists", "fields", "escapes"],
)
def test_an_answer_of_too_many_values_is_malformed_before_it_is_parsed(body: bytes) -> None:
    reply = search([responds(body)], attempts=1)
    assert reply.failure is not None and reply.failure.kind is FailureKind.MALFORMED
    assert reply.failure.message == "the answer has more than 40,000 values"


def test_a_hostile_answer_is_named_by_its_first_fault() -> None:
    reply = search([responds(b'{"hits": [' + b"[]," * 15_000 + b"[]]}")], attempts=1)
    assert reply.failure is not None
    assert reply.failure.words == "malformed: 1 validation error for SearchResponse"


def test_answers_are_requested_without_compression() -> None:
    async def zipped(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=json.dumps({"hits": [{"title": "x" * 5000}]}).encode())
        response.enable_compression()
        return response

    reply = search([zipped])
    assert reply.failure is None and len(reply.unwrap()) == 1


# ---- requests and answers


def test_crops_reach_the_provider_as_bytes() -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        image = make_image()
        found = (await tools.ground(image, "red ring")).unwrap()
        await tools.search_image(found.crops[1])
        (sent,) = provider.requests["imageSearch"]
        assert set(sent) == {"image", "top"}
        received = tool_api.decode_image(sent["image"])
        assert np.array_equal(received.pixels, image.pixels[8:22, 18:32])  # the box and 2 pixels around it
        (asked,) = provider.requests["grounding"]
        assert tool_api.decode_image(asked["instances"][0]["image"]).hash == image.hash

    with_toolbox({}, use)


def test_a_request_of_several_pieces_arrives_whole_and_again_when_it_is_retried() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)  # 120 kB as PNG

    async def use(tools: Toolbox, provider: Provider) -> None:
        (await tools.search_image(images.Image(noise))).unwrap()
        for sent in provider.requests["imageSearch"]:
            assert np.array_equal(tool_api.decode_image(sent["image"]).pixels, noise)
        assert len(provider.requests["imageSearch"]) == 2

    with_toolbox({"imageSearch": [responds(b"", 500), responds(HITS)]}, use)


def test_a_request_with_an_image_joined_in_equals_the_serialised_one() -> None:
    image = images.Image(np.random.default_rng(0).integers(0, 255, (300, 301, 3), dtype=np.uint8))

    def request(text: str) -> tool_api.GroundingRequest:
        instance = tool_api.GroundingInstance(image=text, expression='a "image":"ring')
        return tool_api.GroundingRequest(instances=[instance])

    serialised = request(tool_api.encode_image(image)).model_dump_json().encode()
    assert tool_api.with_image(request(""), image) == serialised


def test_detections_outside_the_image_or_too_small_are_not_offered() -> None:
    async def use(tools: Toolbox, provider: Provider) -> list[regions.Box]:
        return [item.box for item in (await tools.ground(make_image(), "ring")).unwrap().candidates]

    wild = detections((-5, -5, 12, 12), (0, 0, 12, 12), (30, 20, 90, 90), (9, 9, 3, 3), (5, 5, 6, 6))
    assert with_toolbox({"grounding": [responds(wild)]}, use) == [(0, 0, 12, 12), (30, 20, 40, 30)]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_not_finite_makes_an_answer_malformed(number: str) -> None:
    async def use(tools: Toolbox, provider: Provider) -> Reply[Any]:
        return await tools.ground(make_image(), "ring")

    body = f'{{"predictions": [{{"detections": [{{"box": [0, 0, {number}, 9], "score": 1}}]}}]}}'
    reply = with_toolbox({"grounding": [responds(body.encode())]}, use, attempts=1)
    assert reply.failure is not None and reply.failure.kind is FailureKind.MALFORMED


def test_no_detection_is_an_empty_answer_and_no_failure() -> None:
    async def use(tools: Toolbox, provider: Provider) -> Reply[Any]:
        return await tools.ground(make_image(), "unicorn")

    reply = with_toolbox({"grounding": [responds(detections())]}, use)
    assert reply.failure is None and reply.unwrap().candidates == ()


@pytest.mark.parametrize("predictions", [[], [{"detections": []}] * 2])
def test_an_answer_for_another_number_of_images_is_malformed(predictions: list) -> None:
    async def use(tools: Toolbox, provider: Provider) -> Reply[Any]:
        return await tools.ground(make_image(), "ring")

    reply = with_toolbox({"grounding": [responds({"predictions": predictions})]}, use, attempts=1)
    assert reply.failure is not None and reply.failure.kind is FailureKind.MALFORMED


def test_an_expression_or_query_is_cut_to_the_length_that_servers_accept() -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        assert (await tools.ground(make_image(), "ring " * 1000)).failure is None
        assert (await tools.search_text("ring " * 5000)).failure is None
        assert len(provider.requests["grounding"][0]["instances"][0]["expression"]) == 1000
        assert len(provider.requests["textSearch"][0]["query"]) == 4000

    with_toolbox({}, use)


def test_the_same_pixels_are_searched_once_for_all_episodes() -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        again = images.decode(make_image(1).png)
        await asyncio.gather(*(tools.search_image(image) for image in (make_image(1), again, make_image(1))))
        assert (await tools.search_image(again)).cached
        await tools.search_image(make_image(2))
        assert len(provider.requests["imageSearch"]) == 2

    with_toolbox({}, use)


def test_the_same_box_of_the_same_image_is_cropped_once() -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        first, second = [(await tools.ground(make_image(), "ring")).unwrap() for _ in range(2)]
        assert first.crops[0] is second.crops[0]

    with_toolbox({}, use)


def test_the_limits_bound_results_requested_and_candidates_shown() -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        assert len((await tools.ground(make_image(), "ring")).unwrap().candidates) == 1
        await tools.search_text("ring")
        assert provider.requests["textSearch"] == [{"query": "ring", "top": 3}]

    with_toolbox({}, use, top=3, max_candidates=1)


# ---- the judge


def judge(*contents: str, **limits: Any) -> tuple[Reply[bool], list[Any]]:
    async def use(tools: Toolbox, provider: Provider) -> tuple[Reply[bool], list[Any]]:
        return await tools.judge("who?", ["Ada", "A. L."], "ada"), provider.requests["judge"]

    return with_toolbox({"judge": [responds(verdict(content)) for content in contents]}, use, **limits)


def judge_says(body: Any, status: int = 200, **limits: Any) -> tuple[Reply[bool], list[Any]]:
    """One verdict from a judge that always answers with this body, and the requests it received."""

    async def use(tools: Toolbox, provider: Provider) -> tuple[Reply[bool], list[Any]]:
        return await tools.judge("who?", ["Ada"], "ada"), provider.requests["judge"]

    return with_toolbox({"judge": [responds(body, status)]}, use, **limits)


def recorded(folder: Path) -> dict[str, Any]:
    """A recording of one back end."""
    cache = {"mode": "replay-or-live", "path": str(folder / "cache")}
    return {"cache": cache, "backends": {"judge": "world"}}


def test_the_judge_is_asked_at_temperature_zero_with_every_accepted_answer() -> None:
    reply, (sent,) = judge("Yes")
    assert reply.value is True and sent["temperature"] == 0
    assert judging.read_case(sent["messages"][1]["content"]) == ("who?", ["Ada", "A. L."], "ada")


def test_the_judge_s_request_names_the_configured_model_or_a_placeholder() -> None:
    _, (named,) = judge("Yes", judge_model="qwen3-32b")
    _, (unnamed,) = judge("Yes")
    assert (named["model"], unnamed["model"]) == ("qwen3-32b", "judge")


def test_a_verdict_recorded_from_one_model_is_not_used_for_another(tmp_path: Path) -> None:
    first, again, other = (
        judge("Yes", judge_model=model, **recorded(tmp_path))[1] for model in ("one", "one", "other")
    )
    assert [len(first), len(again), len(other)] == [1, 0, 1]


def test_an_answer_recorded_from_one_back_end_is_not_used_for_another(tmp_path: Path) -> None:
    vendors = ("lens", "lens", "bing")
    asked = [judge("Yes", **{**recorded(tmp_path), "backends": {"judge": vendor}})[1] for vendor in vendors]
    assert list(map(len, asked)) == [1, 0, 1]


def test_a_recording_handed_on_replays_every_tool_with_no_server(tmp_path: Path) -> None:
    async def use_all(tools: Toolbox) -> list[Any]:
        grounded = await tools.ground(make_image(), "the ring")
        crop = grounded.unwrap().crops[0]
        rest = [
            await tools.search_image(crop),
            await tools.search_text("ring"),
            await tools.judge("who?", ["Ada"], "A"),
        ]
        return [grounded.unwrap().candidates, *(reply.unwrap() for reply in rest)]

    async def record(tools: Toolbox, provider: Provider) -> list[Any]:
        return await use_all(tools)

    async def replay() -> list[Any]:
        nowhere = dict.fromkeys(WORKING, "http://127.0.0.1:1")
        spec = ToolsSpec(cache={"mode": "replay-strict", "path": str(tmp_path / "here.sqlite")})
        async with Toolbox(nowhere, spec, backends=backends) as tools:
            return await use_all(tools)

    backends = dict.fromkeys(WORKING, "a back end")
    there = {"mode": "record", "path": str(tmp_path / "there.sqlite")}
    recorded = with_toolbox({}, record, backends=backends, cache=there)
    recording_file.write(Recording(tmp_path / "there.sqlite"), tmp_path / "file")
    recording_file.read(tmp_path / "file", tmp_path / "here.sqlite")
    assert asyncio.run(replay()) == recorded


def test_an_answer_recorded_at_one_address_is_not_used_for_another(tmp_path: Path) -> None:
    asked = [judge("Yes", **{**recorded(tmp_path), "backends": {}})[1] for _ in range(2)]  # each at a port of its own
    assert list(map(len, asked)) == [1, 1]


def test_a_no_is_a_verdict_and_no_failure() -> None:
    reply, _ = judge("No.")
    assert (reply.value, reply.failure) == (False, None)


def test_an_undecided_reply_of_the_judge_is_not_retried_and_its_words_are_kept() -> None:
    reply, sent = judge("Well, it\ndepends.", "Yes")
    assert reply.failure is not None and reply.failure.kind is FailureKind.UNDECIDED
    assert (reply.failure.message, len(sent)) == ("neither Yes nor No: 'Well, it depends.'", 1)


REPLIES = {
    "an exclamation": ({"content": "Yes!"}, True),
    "Markdown": ({"content": "**No**"}, False),
    "reasoning in tags": ({"content": "<think>Is it? No…\nIt is.</think>\n\nYes"}, True),
    "an explanation": ({"content": "Yes, because both name Ada."}, True),
    "parts": ({"content": [{"type": "text", "text": "N"}, {"type": "text", "text": "o"}]}, False),
    "null content with reasoning": ({"content": None, "reasoning_content": "The names agree.\nYes"}, True),
    "content beside reasoning": ({"content": "No", "reasoning_content": "At first: Yes"}, False),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_plain_verdict_is_read_in_every_form_of_reply(name: str) -> None:
    message, expected = REPLIES[name]
    reply, _ = judge_says({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert (reply.value, reply.failure) == (expected, None)


def test_a_reply_cut_off_while_reasoning_is_a_judge_error_that_names_the_remedy() -> None:
    message = {"content": None, "reasoning_content": "Let me see. Yes"}
    reply, _ = judge_says({"choices": [{"message": message, "finish_reason": "length"}]}, attempts=1)
    assert reply.failure is not None and "raise tools.judge.maxTokens" in reply.failure.message


REFUSES_MAX_TOKENS = b"""{"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. \\
Use 'max_completion_tokens' instead.", "type": "invalid_request_error", "param": "max_tokens"}}""".replace(b"\\\n", b"")


def test_a_field_that_the_judge_s_server_refuses_is_sent_in_its_dialect_within_the_same_attempt() -> None:
    async def use(tools: Toolbox, provider: Provider) -> tuple[Reply[bool], list[Any]]:
        return await tools.judge("who?", ["Ada"], "ada"), provider.requests["judge"]

    handlers = [responds(REFUSES_MAX_TOKENS, 400), responds(verdict("Yes"))]
    reply, (first, second) = with_toolbox({"judge": handlers}, use, attempts=1)
    assert (reply.value, reply.attempts) == (True, 1)
    assert first["max_tokens"] == second["max_completion_tokens"] == 2048 and "max_tokens" not in second


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": None, "refusal": "I can't."}, "finish_reason": "stop"},
        {"message": {"content": "Let me"}, "finish_reason": "length"},
    ],
)
def test_a_refusal_of_the_judge_and_a_cut_off_reply_are_undecided_and_not_retried(choice: Any) -> None:
    reply, sent = judge_says({"choices": [choice]})
    assert reply.failure is not None and (reply.failure.kind, len(sent)) == (FailureKind.UNDECIDED, 1)


@pytest.mark.parametrize(
    ("contents", "expected"),
    [(("Yes", "No", "Yes"), True), (("No", "No", "Perhaps"), False), (("Yes", "No", "?"), None)],
)
def test_votes_are_sampled_with_seeds_of_their_own_and_the_majority_counts(
    contents: Sequence[str], expected: bool | None
) -> None:
    reply, sent = judge(*contents, judge={"votes": 3, "backoff_seconds": 0.0})
    assert reply.value is expected and (reply.failure is None) == (expected is not None)
    assert sorted((each["temperature"], each["seed"]) for each in sent) == [(1, 0), (1, 1), (1, 2)]


def test_words_of_the_judge_s_server_are_one_printable_line_in_a_failure() -> None:
    refusal = "I refuse \ud800\x1b[31m\nwarning: injected"
    reply, _ = judge_says({"choices": [{"message": {"content": None, "refusal": refusal}}]})
    assert reply.failure is not None
    assert reply.failure.message == "the judge refuses: I refuse [31m warning: injected"


def test_votes_that_disagree_are_no_verdict() -> None:
    reply, _ = judge("Yes", "No", judge={"votes": 2})
    assert reply.failure is not None
    assert (reply.failure.kind, reply.failure.message) == (FailureKind.UNDECIDED, "no majority in 2 votes: 1 Yes, 1 No")


def test_further_fields_of_the_judge_s_requests_are_sent_and_make_another_judge(tmp_path: Path) -> None:
    asked = [
        judge("Yes", judge={"request": request}, **recorded(tmp_path))[1]
        for request in ({"reasoning_effort": "low"}, {"reasoning_effort": "high"}, {"reasoning_effort": "low"})
    ]
    assert [each["reasoning_effort"] for sent in asked for each in sent] == ["low", "high"]


@pytest.mark.parametrize("name", ["messages", "model", "max_tokens", "stream", "n"])
def test_the_judge_s_case_cannot_be_replaced_by_further_fields(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be set here"):
        ToolsSpec.model_validate({"judge": {"request": {name: 1}}})


def test_the_judge_is_given_room_to_reason() -> None:
    _, (sent,) = judge("Yes")
    assert sent["max_tokens"] == 2048


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b'{"error": {"message": "The model `gpt-9` does not exist", "code": "x"}}', "The model `gpt-9` does not exist"),
        (401, b'{"error": "Incorrect API key provided: open sesame"}', "Incorrect API key provided: [key]"),
        (400, b'{"detail": "context of 4096 tokens\\u0007 exceeded"}', "context of 4096 tokens exceeded"),
        (403, b"<h1>Forbidden</h1>\n<p>by policy</p>", "<h1>Forbidden</h1> <p>by policy</p>"),
        (422, b"[" * 200_000, "[" * 299 + "…"),
    ],
)  # fmt: skip
def test_a_refusal_is_not_repeated_and_keeps_the_server_s_words(
    status: int, body: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_GOG_API_KEY", "open sesame")
    reply, sent = judge_says(body, status)
    assert reply.failure is not None and len(sent) == 1
    kind = FailureKind.AUTH if status in (401, 403) else FailureKind.REFUSED
    assert (reply.failure.kind, reply.failure.message) == (kind, f"HTTP {status}: {words}")


def test_the_words_of_a_server_that_limits_the_rate_are_kept() -> None:
    reply, _ = judge_says(b'{"error": {"message": "quota of this month used up"}}', 429, attempts=1)
    assert reply.failure is not None and reply.failure.message == "HTTP 429: quota of this month used up"


NESTED = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize("tool", WORKING)
def test_an_answer_nested_without_end_is_malformed_and_never_an_exception(tool: str) -> None:
    async def use(tools: Toolbox, provider: Provider) -> Reply[Any]:
        calls = {
            "grounding": lambda: tools.ground(make_image(), "ring"),
            "imageSearch": lambda: tools.search_image(make_image()),
            "textSearch": lambda: tools.search_text("ring"),
            "judge": lambda: tools.judge("who?", ["Ada"], "ada"),
        }
        return await calls[tool]()

    reply = with_toolbox({tool: [responds(NESTED)]}, use, attempts=1)
    assert reply.failure is not None and reply.failure.kind is FailureKind.MALFORMED


@pytest.mark.parametrize(
    "failing", [responds(verdict("Maybe")), responds({"choices": []}), responds(b"", 500), responds({"a": None})]
)
def test_a_judge_error_is_not_a_wrong_answer(failing: Handler) -> None:
    async def use(tools: Toolbox, provider: Provider) -> Reply[bool]:
        return await tools.judge("who?", ["Ada"], "ada")

    reply = with_toolbox({"judge": [failing]}, use, attempts=2)
    assert reply.value is None and reply.failure is not None
    assert rewards.reward(reply.value, True).total is None


# ---- whole episodes


def play_all(handlers: Mapping[str, Sequence[Handler]], count: int, **limits: Any) -> list[Trajectory]:
    """`count` episodes at once: ground, gaze, read, answer; each about an image and with a query of its own."""

    async def use(tools: Toolbox, provider: Provider) -> list[Trajectory]:
        episodes = [
            Episode(
                make_question(f"q{number}"),
                make_image(number),
                FakeSession([ground(), gaze(1), text_search(f"query {number}"), answer()]),
                tools,
                AgentSettings(),
                "full",
            )
            for number in range(count)
        ]
        return list(await asyncio.gather(*(episode.run() for episode in episodes)))

    return with_toolbox(handlers, use, **limits)


def test_an_episode_over_http_grounds_gazes_reads_and_answers() -> None:
    (trajectory,) = play_all({}, 1)
    assert (trajectory.stop, trajectory.tool_calls, trajectory.failures) == ("answer", 3, ())
    assert behaviour.classify(trajectory) == "mixed"
    assert [turn.observation.attempts for turn in trajectory.turns[:3]] == [1, 1, 1]


def test_with_5_percent_failures_every_trajectory_finishes_and_failures_are_reported() -> None:
    kinds = [responds(b"", 500), responds(b"", 429), responds(b"garbage"), reset]

    def flaky(good: Handler) -> list[Handler]:
        return [kinds[number // 20 % 4] if number % 20 == 7 else good for number in range(1000)]

    before = total_attempts()
    trajectories = play_all({tool: flaky(WORKING[tool][0]) for tool in WORKING}, 100)
    attempts = total_attempts() - before
    failed = sum(count for outcome, count in attempts.items() if outcome != "ok")
    lost = sum(len(trajectory.failures) for trajectory in trajectories)

    assert [trajectory.stop for trajectory in trajectories] == ["answer"] * 100
    assert all(trajectory.well_formed for trajectory in trajectories)
    assert set(attempts) == {"ok", "server_error", "rate_limited", "malformed", "connection"}
    assert 0.04 < failed / attempts.total() < 0.06
    assert lost <= failed * 0.1  # the others were recovered by a retry
    assert attempts["ok"] == 300 - lost
    assert sum(turn.observation.attempts for item in trajectories for turn in item.turns[:3]) == attempts.total()


def test_with_everything_failing_every_trajectory_still_finishes() -> None:
    trajectories = play_all({tool: [responds(b"", 500)] for tool in WORKING}, 10, attempts=1)
    assert {trajectory.stop for trajectory in trajectories} == {"answer"}
    assert {failure.kind for trajectory in trajectories for failure in trajectory.failures} == {"server_error"}


def total_attempts() -> Counter[str]:
    """Attempts by outcome so far, over every tool."""
    outcomes = Counter[str]()
    for table in metrics.attempts_by_outcome().values():
        outcomes.update(table)
    return outcomes


def test_a_tool_receives_its_own_key_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXT_SEARCH_GOG_API_KEY", " open sesame\n")

    async def use(tools: Toolbox, provider: Provider) -> list[str | None]:
        await tools.search_text("who made the ring?")
        await tools.judge("who?", ["Ann"], "Ann")
        return [provider.headers[tool][0].get("authorization") for tool in ("textSearch", "judge")]

    keys = with_toolbox({"textSearch": [responds(HITS)], "judge": [responds(verdict("yes"))]}, use)
    assert keys == ["Bearer open sesame", None]


def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_GOG_API_KEY", "open\nsesame")
    with pytest.raises(UserError) as caught:
        judge("Yes")
    assert "JUDGE_GOG_API_KEY: the key holds U+000A as character 5 of 11" in str(caught.value)
    assert "sesame" not in str(caught.value)


# ---- the log


def test_failures_are_logged_in_the_server_s_words_and_not_once_for_each(caplog: pytest.LogCaptureFixture) -> None:
    async def use(tools: Toolbox, provider: Provider) -> None:
        for number in range(5):
            await tools.search_text(f"query {number}")

    with_toolbox({"textSearch": [responds(b"no such index", 404)]}, use)
    lines = [record.getMessage() for record in caplog.records if record.name == "gog.tool_client"]
    assert lines == ["textSearch failed: refused: HTTP 404: no such index"]
