"""What calls cost, and the budgets that stop a tool before its vendor does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from support.builders import HANG, SERVER_ERROR, FakeBackend, make_path, now, request, run
from support.loopback import HITS, Handler, Provider, responds, verdict, with_toolbox

from gog import outage, store
from gog.calls import spend_log
from gog.calls.rate_limit import RateLimit
from gog.calls.spend import Account, Amount, Spend
from gog.calls.spend_log import SpendLog
from gog.errors import UserError
from gog.spec import BudgetSpec, OutageSpec
from gog.tool_client import Toolbox
from gog.tool_types import Bill, Decision, FailureKind, Reply

DAY, NIGHT = 1_767_600_000.0, 1_767_600_000.0 + 86_400
PAID = responds(HITS, **{"X-GoG-Cost-USD": "0.01"})


def make_account(day: float = DAY, **budgets: Mapping[str, float]) -> Account:
    """An account with a budget of the run (`run`) and of tools."""
    given = {"" if name == "run" else name: BudgetSpec(**limits) for name, limits in budgets.items()}
    return Account(given, lambda: day)


def spend(account: Account, tool: str, calls: int = 1, usd: float = 0.0) -> str:
    """Makes a call, if the account allows one; why it does not."""
    refusal = account.reserve(tool)
    if not refusal:
        account.charge(tool, calls, usd)
        account.release(tool)
    return refusal


# ---- the account


def test_a_tool_stops_at_its_budget_and_others_do_not() -> None:
    account = make_account(textSearch={"calls": 2})
    assert [spend(account, "textSearch") for _ in range(3)] == ["", "", "tools.textSearch.budget.calls (2) is used up"]
    assert spend(account, "imageSearch") == ""


def test_the_budget_of_the_run_counts_all_tools_and_the_judge() -> None:
    account = make_account(run={"usd": 0.03})
    assert [spend(account, tool, usd=0.01) for tool in ("textSearch", "imageSearch", "judge")] == ["", "", ""]
    assert spend(account, "imageSearch") == "tools.budget.usd (0.03 USD) is used up"


def test_a_call_that_would_exceed_the_budget_at_the_last_price_is_refused() -> None:
    account = make_account(run={"usd": 0.05})
    assert [bool(spend(account, "textSearch", usd=0.02)) for _ in range(3)] == [False, False, True]


def test_requests_under_way_count_at_the_last_price() -> None:
    account = make_account(run={"usd": 0.05}, textSearch={"calls": 4})
    spend(account, "textSearch", usd=0.01)
    assert [account.reserve("textSearch") for _ in range(3)] == ["", "", ""]
    assert account.reserve("textSearch") == "tools.textSearch.budget.calls (4) is used up"
    account.release("textSearch")
    assert account.reserve("textSearch") == ""


def test_a_budget_per_day_is_whole_again_on_the_next_day() -> None:
    account = make_account(textSearch={"calls_per_day": 1}, run={"usd_per_day": 0.5})
    assert [bool(spend(account, "textSearch")) for _ in range(2)] == [False, True]
    account.now = lambda: NIGHT
    assert spend(account, "textSearch") == ""


def test_what_costs_nothing_continues_when_the_money_is_used_up() -> None:
    account = make_account(run={"usd": 0.01})
    spend(account, "grounding")
    spend(account, "textSearch", usd=0.01)
    assert spend(account, "textSearch") and spend(account, "grounding") == ""


@pytest.mark.parametrize(
    ("price", "sent", "refused"),
    [(0.01, [0], 2), (0.0, [0, 1, 1, 1.5], 0)],
    ids=["it costs", "it is free, and hedged from then on"],
)
def test_when_the_money_is_used_up_one_request_at_a_time_learns_an_unknown_price(
    price: float, sent: list[float], refused: int
) -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(send, concurrency=3, hedge_seconds=0.5)
        path.send = send
        path.account = make_account(run={"usd": 0})
        return await asyncio.gather(*(request(path, str(number)) for number in range(3)))

    async def send(body: bytes, bill: Bill) -> bytes:
        requests.append(now())
        await asyncio.sleep(1)
        bill.usd = price
        return b"a ring"

    requests: list[float] = []
    replies = run(scenario())
    assert requests == sent
    failures = [reply.failure.words for reply in replies if reply.failure is not None]
    assert failures == ["budget: tools.budget.usd (0 USD) is used up"] * refused


def test_a_failed_request_that_shows_no_price_lets_the_next_one_learn_it() -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(backend, attempts=1, concurrency=3)
        path.account = make_account(run={"usd": 0})
        return await asyncio.gather(*(request(path, str(number)) for number in range(3)))

    backend = FakeBackend([SERVER_ERROR, b"a ring"], seconds=1)
    assert [reply.failure is None for reply in run(scenario())] == [False, True, True]
    assert backend.times == [0, 1, 2]


def test_a_price_that_is_known_from_the_manifest_or_from_other_processes_is_not_tried() -> None:
    account = make_account(run={"usd": 0})
    account.prices["judge"] = 0.01
    account.others.add("textSearch", "2026-01-05", Amount(calls=2, usd=0.02))
    assert spend(account, "judge") and spend(account, "textSearch")


def test_a_failure_that_costs_nothing_does_not_make_the_next_call_free() -> None:
    account = make_account(run={"usd": 0.03})
    assert [spend(account, "textSearch", usd=0.02), account.reserve("judge")] == ["", ""]
    account.charge("textSearch", 1, 0.0, is_price=False)
    assert spend(account, "textSearch") == "tools.budget.usd (0.03 USD) is used up"


def test_a_tool_is_not_called_while_less_is_left_on_its_account_than_a_call_costs() -> None:
    now = [DAY]
    account = Account(now=lambda: now[0])
    account.charge("textSearch", 1, 0.01, credit=0.5)
    assert account.no_credit("textSearch") == ""
    account.charge("textSearch", 1, 0.01, credit=0.004)
    assert account.no_credit("textSearch") == "0.004 USD are left on the account, and a call costs 0.01 USD"
    assert account.no_credit("imageSearch") == ""
    now[0] += 60
    assert account.no_credit("textSearch") == "", "it may have been topped up"


# ---- over the run


def test_what_other_processes_have_spent_counts(tmp_path: Path) -> None:
    accounts = [make_account(textSearch={"calls": 5}) for _ in range(2)]
    logs = [SpendLog(lambda: store.open_store(tmp_path.as_uri()), "grpo", account) for account in accounts]

    async def report() -> None:
        for each in (*logs, logs[0]):
            await each.sync()

    for _ in range(3):
        assert spend(accounts[0], "textSearch") == ""
    asyncio.run(report())
    assert [spend(accounts[1], "textSearch") for _ in range(2)] == ["", ""]
    assert spend(accounts[1], "textSearch") and accounts[0].others.total() == Amount()
    asyncio.run(report())
    assert spend(accounts[0], "textSearch")
    assert spend_log.read(store.open_store(tmp_path.as_uri())).total("textSearch").calls == 5


def test_nothing_is_written_where_nothing_costs_and_nothing_is_limited(tmp_path: Path) -> None:
    def refuse() -> store.Store:
        raise AssertionError

    account = make_account()
    spend(account, "textSearch")
    asyncio.run(SpendLog(refuse, "grpo", account).sync())


def test_a_damaged_report_is_ignored(tmp_path: Path) -> None:
    kept = store.open_store(tmp_path.as_uri())
    kept.put_object("spend/grpo/a.json", b"{}")
    kept.put_object("spend/grpo/b.json", b'{"tools": {"judge": {"2026-01-05": {"calls": -1}}}}')
    kept.put_object("spend/grpo/c.json", b'{"tools": {"judge": {"2026-01-05": {"calls": 2, "usd": 0.5}}}}')
    assert spend_log.read(kept).total() == Amount(calls=2, usd=0.5)


def test_reports_of_impossible_amounts_overflow_no_sum(tmp_path: Path) -> None:
    kept = store.open_store(tmp_path.as_uri())
    for name, amount in (("a", "1e308"), ("b", "1e12"), ("c", "1e12")):
        report = f'{{"tools": {{"judge": {{"2026-01-05": {{"calls": 1, "usd": {amount}}}}}}}}}'
        kept.put_object(f"spend/grpo/{name}.json", report.encode())
    assert spend_log.read(kept).total() == Amount(calls=2, usd=1e12)


def test_spends_are_added_by_tool_and_day() -> None:
    parts = []
    for tool, day in (("judge", "a"), ("judge", "b"), ("textSearch", "a")):
        parts.append(Spend())
        parts[-1].add(tool, day, Amount(calls=1, usd=0.5))
    whole = Spend.sum_of(parts)
    assert (whole.total().calls, whole.total("judge").calls, whole.total("judge", "a").usd) == (3, 2, 0.5)


# ---- the call path


def search(
    served: Handler | Sequence[Handler], queries: int = 1, **limits: Any
) -> tuple[list[Reply[Any]], Account, int]:
    """Text searches one after the other: replies, account, and requests that reached the server."""
    handlers = served if isinstance(served, Sequence) else [served]

    async def use(tools: Toolbox, provider: Provider) -> tuple[list[Reply[Any]], Account, int]:
        replies = [await tools.search_text(f"query {number}") for number in range(queries)]
        return replies, tools.account, len(provider.requests["textSearch"])

    return with_toolbox({"textSearch": handlers}, use, **limits)


def test_the_cost_that_a_server_reports_is_in_the_reply_and_in_the_account() -> None:
    replies, account, _ = search(PAID, 2)
    assert [reply.usd for reply in replies] == [0.01, 0.01]
    assert account.own.total("textSearch") == Amount(calls=2, usd=0.02)


def test_a_server_that_reports_no_cost_is_charged_at_the_price_of_the_manifest() -> None:
    replies, account, _ = search(responds(HITS), text_search={"usd_per_call": 0.005})
    assert replies[0].usd == account.own.total().usd == 0.005
    failed, account, _ = search(responds(b"", 429), attempts=1, text_search={"usd_per_call": 0.005})
    assert failed[0].usd == account.own.total().usd == 0, "vendors charge for answers"


def test_the_calls_of_a_vendor_count_where_the_server_reports_them() -> None:
    assert search(responds(HITS, **{"X-GoG-Calls": "6"}))[1].own.total().calls == 6


def test_a_used_up_budget_refuses_calls_without_a_request() -> None:
    replies, _, requests = search(PAID, 4, text_search={"budget": {"usd": 0.02}})
    assert [reply.failure and reply.failure.kind for reply in replies] == [None, None, *[FailureKind.BUDGET] * 2]
    assert requests == 2 and replies[-1].decisions == (Decision.BUDGET,)


def test_a_tool_without_credit_is_refused_before_its_vendor_refuses_it() -> None:
    last = responds(HITS, **{"X-GoG-Cost-USD": "0.01", "X-GoG-Credit-USD": "0.002"})
    replies, _, requests = search(last, 2)
    assert requests == 1 and replies[1].failure is not None
    assert replies[1].failure.kind is FailureKind.NO_CREDIT and replies[1].failure.message.startswith("0.002 USD")


def test_retries_count_as_calls() -> None:
    async def scenario() -> Reply[str]:
        path = make_path(backend, attempts=3)
        path.account = make_account(textSearch={"calls": 2})
        return await request(path)

    backend = FakeBackend([SERVER_ERROR])
    reply = run(scenario())
    assert reply.failure is not None and reply.failure.kind is FailureKind.BUDGET
    assert len(backend.requests) == 2


def test_concurrent_calls_keep_to_the_budget() -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(backend, concurrency=8)
        path.account = make_account(textSearch={"calls": 5})
        return await asyncio.gather(*(request(path, str(number)) for number in range(8)))

    backend = FakeBackend(seconds=1)
    run(scenario())
    assert len(backend.requests) == 5


def test_calls_that_wait_for_the_turn_of_another_keep_to_the_budget() -> None:
    async def scenario() -> None:
        path = make_path(backend, concurrency=8, attempts=1)
        late = iter([0, 0.5, *range(2, 100, 2)])  # only the second one sleeps; the others wait for its turn to end
        path.rate = RateLimit(60, clock=late.__next__)
        path.account = make_account(textSearch={"calls": 2})
        await asyncio.gather(*(request(path, str(number)) for number in range(6)))

    backend = FakeBackend(seconds=100)
    run(scenario())
    assert len(backend.requests) == 2


def test_hedges_keep_to_the_budget() -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(backend, concurrency=8, attempts=1, hedge_seconds=1)
        path.account = make_account(textSearch={"calls": 5})
        return await asyncio.gather(*(request(path, str(number)) for number in range(4)))

    backend = FakeBackend(seconds=3)
    replies = run(scenario())
    assert len(backend.requests) == 5 and all(reply.failure is None for reply in replies)
    assert [Decision.HEDGED in reply.decisions for reply in replies].count(True) == 1


def test_a_hedge_that_was_cut_off_frees_its_reservation() -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(backend, concurrency=8, attempts=1, hedge_seconds=1, deadline_seconds=2)
        path.account = make_account(textSearch={"calls": 3})
        return [await request(path, "stalls"), await request(path, "works")]

    backend = FakeBackend([HANG, HANG, b"a ring"])
    assert [reply.failure is None for reply in run(scenario())] == [False, True]


def test_a_call_that_the_budget_refuses_uses_up_neither_the_breaker_s_test_nor_the_rate_limit() -> None:
    async def scenario() -> tuple[list[Reply[str]], bool, float]:
        path = make_path(FakeBackend([SERVER_ERROR, b"a ring"]), attempts=1, breaker_failures=1, breaker_seconds=5)
        path.rate = RateLimit(1, clock=now)
        path.account = make_account(textSearch={"calls": 1})
        replies = [await request(path, "fails")]
        await asyncio.sleep(5)
        began = now()
        replies.append(await request(path, "refused"))
        waited = now() - began
        path.account = Account()
        return [*replies, await request(path, "tests")], path.breaker.is_open, waited

    (_, refused, tested), is_open, waited = run(scenario())
    assert refused.failure is not None and refused.failure.kind is FailureKind.BUDGET and waited == 0
    assert tested.value == "a ring" and not is_open


def test_a_stage_ends_with_the_budget_s_name_and_a_remedy() -> None:
    with pytest.raises(
        UserError, match=r"tools.textSearch.budget.calls \(1\) is used up \(raise it, then `gog resume`\)"
    ):
        search(PAID, 2, text_search={"budget": {"calls": 1}}, watch=outage.Watch(OutageSpec()))


def test_a_cached_answer_costs_nothing() -> None:
    async def use(tools: Toolbox, provider: Provider) -> list[float]:
        return [(await tools.search_text("ring")).usd for _ in range(2)]

    assert with_toolbox({"textSearch": [PAID]}, use) == [0.01, 0.0]


def test_concurrent_calls_keep_to_a_budget_of_money_after_a_failed_request() -> None:
    async def use(tools: Toolbox, provider: Provider) -> tuple[int, Amount]:
        await tools.search_text("fails")
        await asyncio.gather(*(tools.search_text(f"query {number}") for number in range(4)))
        return len(provider.requests["textSearch"]), tools.account.own.total()

    policy = {"usd_per_call": 0.01, "budget": {"usd": 0.015}}
    handlers = {"textSearch": [responds(b"", 500), responds(HITS)]}
    assert with_toolbox(handlers, use, attempts=1, text_search=policy) == (2, Amount(calls=2, usd=0.01))


def test_a_request_that_is_sent_again_in_another_form_is_charged_twice() -> None:
    async def use(tools: Toolbox, provider: Provider) -> tuple[Reply[bool], Amount]:
        return await tools.judge("who?", ["Ada"], "Ada"), tools.account.own.total("judge")

    charge = {"X-GoG-Cost-USD": "0.01", "X-GoG-Calls": "1"}
    refusal = responds({"error": {"message": "temperature is not supported"}}, 400, **charge)
    reply, spent = with_toolbox({"judge": [refusal, responds(verdict("Yes"), **charge)]}, use)
    assert reply.value is True and reply.usd == 0.02 and spent == Amount(calls=2, usd=0.02)


def test_an_answer_that_breaks_off_is_charged_as_its_head_says() -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "100", "X-GoG-Cost-USD": "0.01"})
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport is not None
        request.transport.abort()
        return response

    assert search(broken, attempts=1)[1].own.total().usd == 0.01


def test_a_failure_that_was_charged_is_in_the_bill() -> None:
    async def send(body: bytes, bill: Bill) -> bytes:
        bill.usd = 0.01
        raise SERVER_ERROR

    async def scenario() -> Reply[str]:
        path = make_path(send, attempts=2, backoff_seconds=0)
        path.send = send
        return await request(path)

    assert run(scenario()).usd == 0.02
