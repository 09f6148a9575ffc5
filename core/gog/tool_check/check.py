"""Calls every server of a run, all at the same time, through the call path of a run.

A call differs from one of a run in what the check is for: it has more time, so that a slow tool is distinguished from a
dead one; it is repeated once at most; it is not hedged, not answered from the cache, and keeps to no budget. A call that
took longer than the run would wait is repeated, because the first call of a server often loads something.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gog import api_keys, catalog, tool_api, tool_transport, wording
from gog.errors import UserError
from gog.spec import BudgetSpec, CacheSpec, CallPolicy, ToolsSpec, key_variable
from gog.tool_check import chat_probe, diagnosis, samples
from gog.tool_check.config import COMPARED, CheckConfig, Target, targets
from gog.tool_check.diagnosis import Problem
from gog.tool_check.report import Report, Result
from gog.tool_client import Toolbox
from gog.tool_transport import Exchange
from gog.tool_types import Reply

ATTEMPTS = 2
"""Attempts of a call: what fails once in a hundred calls is no finding."""
PATIENCE, LEAST_SECONDS, MOST_SECONDS = 3.0, 10.0, 300.0
"""A call has three times the deadline of a run, but at least and at most so many seconds."""
NOTED_SKEW = 30.0
"""Seconds of difference between two clocks that are noted."""
_LOGGERS = ("gog.tool_client", "gog.chat_dialect")


async def check(
    config: CheckConfig,
    *,
    environment: Mapping[str, str] = os.environ,
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Report:
    """Calls every server once.

    Args:
        config: the servers.
        environment: variables with their keys.
        now: seconds since 1970, for the clocks of servers.
        monotonic: seconds, for the duration of the check.
    """
    if config.tools.cache.is_replay:
        return Report(())  # the run calls none
    probe, began = _Probe(config, environment, now), monotonic()
    with _without_logs():
        results = await asyncio.gather(*(probe.result(target) for target in targets(config)))
    return Report(tuple(results), round(monotonic() - began, 2))


@dataclass
class _Answer:
    """A call and what was observed of it."""

    reply: Reply[Any]
    """What the call path returned."""
    exchange: Exchange
    """Its last request; an empty one where none was answered."""
    has_key: bool
    """Whether a key was sent."""


@dataclass
class _Probe:
    """Calls servers."""

    config: CheckConfig
    """The servers."""
    environment: Mapping[str, str]
    """Variables with their keys."""
    now: Callable[[], float]
    """Seconds since 1970."""

    async def result(self, target: Target) -> Result:
        """What one server answers."""
        if target.tool != COMPARED and target.tool not in samples.SAMPLES:
            return Result(target, notes=("it was not called: core/gog/tool_check/samples.py has no row for it",))
        policy = self._policy(target)
        try:
            key = api_keys.from_environment(key_variable(target.name), self.environment)
            made = await self._call(target, key, policy)
            notes: tuple[str, ...] = ()
            if made.reply.failure is None and made.reply.seconds > policy.deadline_seconds:
                notes = (f"its first call took {made.reply.seconds:.1f} s",)
                made = await self._call(target, key, policy)
        except UserError as error:
            return Result(target, Problem("key", f"{error.where}: {error.what}", error.remedy))
        return self._result(target, policy, made, notes)

    def _result(self, target: Target, policy: CallPolicy, made: _Answer, notes: tuple[str, ...]) -> Result:
        reply, exchange = made.reply, made.exchange
        ahead = diagnosis.skew(exchange.headers, self.now())
        if reply.failure is not None:
            problem: Problem | None = diagnosis.of_failure(target, reply.failure, exchange, has_key=made.has_key)
        else:
            problem = diagnosis.of_answer(target, reply.value, exchange, reply.seconds, policy.deadline_seconds)
            problem = problem or diagnosis.of_clock(target, ahead)
        if abs(ahead) > NOTED_SKEW:
            notes = (*notes, f"its clock differs from ours by {ahead:+.0f} s")
        return Result(
            target,
            problem,
            round(reply.seconds, 4),
            usd=round(reply.usd, 6),
            answer="" if reply.failure is not None else _shown(target, reply.value),
            notes=notes,
            **_reported(exchange),
        )

    def _policy(self, target: Target) -> CallPolicy:
        """How the run calls the server."""
        if target.tool == COMPARED:
            seconds = self.config.tools.policy_server.deadline_seconds
            return CallPolicy(deadline_seconds=seconds, budget_seconds=seconds)
        return self.config.tools.policy(target.tool)

    async def _call(self, target: Target, key: str, policy: CallPolicy) -> _Answer:
        patience = min(
            max(PATIENCE * policy.deadline_seconds, LEAST_SECONDS), max(MOST_SECONDS, policy.deadline_seconds)
        )
        own = {
            "attempts": ATTEMPTS,
            "deadline_seconds": patience,
            "budget_seconds": patience,
            "usd_per_call": self._price(target, policy),
        }
        exchanges = [Exchange()]
        if target.tool == COMPARED:
            endpoint = self.config.endpoint
            assert endpoint is not None
            patient = policy.model_copy(update=own)
            reply: Reply[Any] = await chat_probe.ask(endpoint, key, samples.photograph(), patient, exchanges.append)
            return _Answer(reply, exchanges[-1], bool(key))
        limits = _limits(self.config.tools, target.tool, own)
        keys = {target.tool: key}
        async with Toolbox(
            {target.tool: target.url}, limits, target.model, keys=keys, observe=exchanges.append
        ) as tools:
            reply = await samples.SAMPLES[target.tool].ask(tools, target.backend)
        return _Answer(reply, exchanges[-1], bool(key))

    def _price(self, target: Target, policy: CallPolicy) -> float | None:
        if target.name == target.tool or target.tool == COMPARED:
            return policy.usd_per_call
        fallback = self.config.tools.fallback(target.tool)
        return fallback.usd_per_call if fallback is not None else None


def _limits(tools: ToolsSpec, tool: str, own: Mapping[str, Any]) -> ToolsSpec:
    """The settings of a run for a check of one tool."""
    row = catalog.SERVER_BY_NAME[tool].field
    level = getattr(tools, row).model_copy(update={**own, "fallback": None, "budget": BudgetSpec()})
    if tool == "judge":
        level = level.model_copy(update={"votes": 1})
    cleared = {"cache": CacheSpec(mode="off"), "budget": BudgetSpec(), "hedge_seconds": None}
    return tools.model_copy(update={**cleared, row: level.model_copy(update={"hedge_seconds": None})})


def _shown(target: Target, value: Any) -> str:
    if target.tool == COMPARED:
        return wording.one_line(str(value), 120)
    return samples.SAMPLES[target.tool].words(value)


def _reported(exchange: Exchange) -> dict[str, Any]:
    """What a response tells of its server: versions, vendor, credit. Untrusted."""
    headers = exchange.headers
    calls, credit = headers.get(tool_api.CALLS_HEADER, ""), headers.get(tool_api.CREDIT_HEADER)
    model = ""
    with contextlib.suppress(ValueError, RecursionError):
        body = json.loads(exchange.body)
        found = body.get("model") if isinstance(body, dict) else None
        model = found if isinstance(found, str) else ""
    return {
        "server": wording.one_line(headers.get(tool_api.SERVER_HEADER) or headers.get("server", ""), 80),
        "model": wording.one_line(model, 80),
        "vendor": wording.one_line(headers.get(tool_api.VENDOR_HEADER, ""), 40),
        "calls": int(calls) if calls.isascii() and calls.isdigit() and len(calls) < 10 else 0,
        "credit_usd": None if credit is None else tool_transport.dollars(credit),
    }


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Keeps failures out of the log, because the report describes them."""

    def nothing(_: logging.LogRecord) -> bool:
        return False

    for name in _LOGGERS:
        logging.getLogger(name).addFilter(nothing)
    try:
        yield
    finally:
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(nothing)
