"""A tool with a second server, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.loopback import HITS, WORKING, Handler, Provider, responds, verdict, with_toolbox

from gog.spec import RunSpec, ToolsSpec
from gog.tool_client import Toolbox
from gog.tool_types import Decision, FailureKind, Reply
from gog_operator.api.objects import GoGRun
from gog_operator.build import children

DOWN = responds(b"overloaded", 503)


def search(
    own: Handler, second: Sequence[Handler], text_search_budget: int | None = None
) -> tuple[Reply[Any], Provider]:
    """One text search: its reply, and the second server."""

    async def use() -> tuple[Reply[Any], Provider]:
        async with Provider({**WORKING, "textSearch": [own]}) as first, Provider({"textSearch": second}) as other:
            budget = {"calls": text_search_budget}
            policy = {"fallback": {"url": other.url}, "budget": budget}
            given = {"backoff_seconds": 0, "attempts": 2, "text_search": policy}
            async with Toolbox({"textSearch": first.url}, ToolsSpec(**given)) as tools:
                return await tools.search_text("ring"), other

    return asyncio.run(use())


def test_the_fallback_answers_where_the_server_has_failed_after_all_retries() -> None:
    reply, other = search(DOWN, [responds(HITS)])
    assert len(reply.unwrap()) == 5 and reply.attempts == 3 and len(other.requests["textSearch"]) == 1
    assert reply.decisions == (Decision.RETRIED, Decision.FELL_BACK)


@pytest.mark.parametrize("status", [401, 402, 429])
def test_the_fallback_answers_while_an_account_is_closed_or_used_up(status: int) -> None:
    assert search(responds(b"", status), [responds(HITS)])[0].failure is None


def test_the_fallback_is_left_alone_while_the_server_works_and_where_it_refuses_the_request() -> None:
    for own in (responds(HITS), responds(b"", 400)):
        reply, other = search(own, [responds(HITS)])
        assert other.requests["textSearch"] == [] and Decision.FELL_BACK not in reply.decisions


def test_a_call_that_both_fail_is_a_failure_of_the_first_that_names_both() -> None:
    reply, _ = search(DOWN, [responds(b"no credit", 402)])
    assert reply.failure is not None and reply.failure.kind is FailureKind.SERVER_ERROR
    assert reply.failure.message == "HTTP 503: overloaded; its fallback: no_credit: HTTP 402: no credit"


def test_equal_calls_that_both_servers_fail_count_as_one_failure() -> None:
    async def use() -> list[Reply[Any]]:
        async with Provider({**WORKING, "textSearch": [DOWN]}) as first, Provider({"textSearch": [DOWN]}) as other:
            given = {"backoff_seconds": 0, "attempts": 1, "text_search": {"fallback": {"url": other.url}}}
            async with Toolbox({"textSearch": first.url}, ToolsSpec(**given)) as tools:
                return await asyncio.gather(*(tools.search_text("ring") for _ in range(5)))

    replies = asyncio.run(use())
    assert sorted(reply.cached for reply in replies) == [False, True, True, True, True]


def test_the_fallback_answers_when_the_budget_of_the_tool_is_used_up() -> None:
    async def use() -> list[Reply[Any]]:
        paid = responds(HITS, **{"X-GoG-Cost-USD": "0.01"})
        async with (
            Provider({**WORKING, "textSearch": [paid]}) as first,
            Provider({"textSearch": [responds(HITS)]}) as other,
        ):
            policy = {"fallback": {"url": other.url}, "budget": {"usd": 0.02, "calls": 2}}
            async with Toolbox({"textSearch": first.url}, ToolsSpec(budget={"usd": 0.02}, text_search=policy)) as tools:
                return [await tools.search_text(f"query {number}") for number in range(4)]

    replies = asyncio.run(use())
    assert [reply.usd for reply in replies] == [0.01, 0.01, 0, 0] and all(reply.failure is None for reply in replies)
    assert replies[-1].decisions == (Decision.BUDGET, Decision.FELL_BACK)


def test_a_call_over_budget_whose_fallback_fails_is_a_failure_of_the_fallback_s_kind() -> None:
    reply, _ = search(responds(HITS), [DOWN], text_search_budget=0)
    assert reply.failure is not None and reply.failure.kind is FailureKind.SERVER_ERROR
    assert reply.failure.message.endswith("(fallback, because of budget: tools.textSearch.budget.calls (0) is used up)")


def test_price_and_rate_limit_of_a_tool_are_not_those_of_its_fallback() -> None:
    async def use() -> tuple[Any, ...]:
        own = {
            "usd_per_call": 0.01,
            "rate_per_minute": 60,
            "fallback": {"url": "http://127.0.0.1:1", "usd_per_call": 0.5},
        }
        async with Toolbox({}, ToolsSpec(text_search=own)) as tools:
            path = tools._fallbacks["textSearch"]
            return path.policy.usd_per_call, path.rate.interval, tools.account.prices

    assert asyncio.run(use()) == (0.5, 0, {"textSearch": 0.01, "textSearchFallback": 0.5})


def test_the_fallback_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXT_SEARCH_GOG_API_KEY", "first key")
    monkeypatch.setenv("TEXT_SEARCH_FALLBACK_GOG_API_KEY", "second key")
    _, other = search(DOWN, [responds(HITS)])
    assert [headers["authorization"] for headers in other.headers["textSearch"]] == ["Bearer second key"]


def test_a_judge_s_fallback_is_asked_for_its_own_model() -> None:
    async def use() -> list[Any]:
        async with Provider({"judge": [responds(verdict("Yes"))]}) as other:
            judge = {"attempts": 1, "fallback": {"url": other.url, "model": "small"}}
            async with Toolbox({"judge": "http://127.0.0.1:1"}, ToolsSpec(judge=judge), "large") as tools:
                assert (await tools.judge("who?", ["Ada"], "Ada")).value is True
                return other.requests["judge"]

    assert [sent["model"] for sent in asyncio.run(use())] == ["small"]


def test_a_strict_replay_takes_the_fallback_s_answer_where_the_run_did(tmp_path: Path) -> None:
    cache = {"mode": "record", "path": str(tmp_path / "answers.sqlite")}
    limits = {"text_search": {"fallback": {"url": "http://127.0.0.1:1"}}}

    async def ask(tools: Toolbox, provider: Provider) -> Reply[Any]:
        tools._fallbacks["textSearch"].send = tools._paths["imageSearch"].send  # answers hits, too
        return await tools.search_text("ring")

    down = {"textSearch": [DOWN]}
    backends = {"textSearch": "a back end"}
    recorded = with_toolbox(down, ask, backends=backends, cache=cache, **limits)
    replayed = with_toolbox(down, ask, backends=backends, cache={**cache, "mode": "replay-strict"}, **limits)
    assert replayed.unwrap() == recorded.unwrap()
    assert replayed.cached and replayed.decisions == (Decision.FELL_BACK, Decision.CACHED)


def test_the_secret_of_a_fallback_reaches_the_stage_under_its_own_name() -> None:
    fallback = {"url": "https://search.example.org", "secretName": "search-keys"}
    spec = {
        "model": {"base": "tiny"},
        "data": {"world": {}},
        "tools": {"textSearch": {"fallback": fallback}},
    }
    RunSpec.model_validate(spec)
    run = GoGRun.model_validate({"metadata": {"name": "world"}, "spec": spec})
    assert children.keys(run) == {"textSearchFallback": "search-keys"}
