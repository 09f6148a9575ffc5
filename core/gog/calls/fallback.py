"""A second server of a tool, called where its own has failed after all retries.

Each server has a call path of its own, with its own breaker, slots and keys of recorded answers, so an answer of the
second one is never taken for one of the first. A strict replay looks for the second server's answer where the first
one's is not recorded, and thus repeats the run. A refused request is not repeated, because it is the request that is
wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from gog import metrics
from gog.tool_types import CLOSED_ACCOUNT, RETRYABLE, Decision, FailureKind, Reply, ToolFailure, add_pages

Value = TypeVar("Value")
FALLS_BACK = RETRYABLE | CLOSED_ACCOUNT | {FailureKind.BREAKER_OPEN, FailureKind.BUDGET, FailureKind.CACHE_MISS}
"""Failures after which the second server is called."""


async def call(first: Reply[Value], second: Callable[[], Awaitable[Reply[Value]]]) -> Reply[Value]:
    """The first server's reply, or both as one where the second had to be called.

    Args:
        first: reply of the tool's own server.
        second: calls the other server.
    """
    if first.failure is None or first.failure.kind not in FALLS_BACK:
        return first
    metrics.record_decision(first.failure.tool, Decision.FELL_BACK)
    return joined(first, first.failure, await second())


def joined(first: Reply[Value], why: ToolFailure, second: Reply[Value]) -> Reply[Value]:
    """The reply of a call that both servers were asked for.

    If both failed, the failure is of the first one's kind, unless that is final for the first one: what can pass is then
    the other failure.
    """
    failure = None
    if second.failure is not None and why.kind in CLOSED_ACCOUNT | {FailureKind.BUDGET}:
        failure = replace(second.failure, message=f"{second.failure.message} (fallback, because of {why.words})")
    elif second.failure is not None:
        failure = replace(why, message=f"{why.message}; its fallback: {second.failure.words}")
    return Reply(
        second.value,
        failure,
        first.attempts + second.attempts,
        first.seconds + second.seconds,
        second.cached and (first.cached or not first.attempts),
        tuple(dict.fromkeys((*first.decisions, Decision.FELL_BACK, *second.decisions))),
        first.waited + second.waited,
        first.usd + second.usd,
        add_pages(first.pages, second.pages),
    )
