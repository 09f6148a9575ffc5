"""The judge over HTTP: its requests, its replies in every form, its errors, and its recorded verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.builders import make_image
from support.loopback import (
    WORKING,
    Handler,
    Provider,
    responds,
    verdict,
    with_toolbox,
)

from gog import judging, rewards
from gog.calls import recording_file
from gog.calls.recording import Recording
from gog.errors import UserError
from gog.spec import ToolsSpec
from gog.tool_client import Toolbox
from gog.tool_types import FailureKind, Reply


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
    recording_file.read(tmp_path / "file", lambda: Recording(tmp_path / "here.sqlite"))
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
            "ocr": lambda: tools.read_text(make_image()),
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


def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_GOG_API_KEY", "open\nsesame")
    with pytest.raises(UserError) as caught:
        judge("Yes")
    assert "JUDGE_GOG_API_KEY: the key holds U+000A as character 5 of 11" in str(caught.value)
    assert "sesame" not in str(caught.value)


# ---- the log


def test_the_models_that_gave_verdicts_are_counted() -> None:
    async def use(tools: Toolbox, provider: Provider) -> dict[str, int]:
        await tools.judge("who?", ["Ada"], "ada")
        await tools.judge("who?", ["Ada"], "bob")
        return tools.judged_by.counts()

    said = [responds({**verdict(each), "model": model}) for each, model in (("Yes", "j-1"), ("No", "j-2"))]
    assert with_toolbox({"judge": said}, use) == {"j-1": 1, "j-2": 1}
