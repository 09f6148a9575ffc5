"""Fake tools and judges of rollouts, which count, charge and fail."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gog.outage import Waiting, Watch
from gog.spec import OutageSpec
from gog.tool_types import Decision, FailureKind, Reply, ToolFailure
from support.builders import FakeTools, now


@dataclass
class FakeServices(FakeTools):
    """FakeTools with a judge that accepts the gold answers."""

    judge_outcomes: list[FailureKind | None] = field(default_factory=list)
    """Failure of each of the judge's first calls; None: a verdict."""
    judged: list[str] = field(default_factory=list)
    """The answers that the judge was asked about."""

    async def judge(self, question: str, answers: Sequence[str], answer: str) -> Reply[bool]:
        self.judged.append(answer)
        await asyncio.sleep(0.1)
        kind = self.judge_outcomes.pop(0) if self.judge_outcomes else None
        if kind is not None:
            return Reply(None, ToolFailure("judge", kind, "on purpose"), attempts=1)
        return Reply(answer in answers, attempts=1)


class PricedServices(FakeServices):
    """Services that charge, and calls of which were retried."""

    async def search_text(self, query: str) -> Reply[Any]:
        found = await super().search_text(query)
        return dataclasses.replace(found, decisions=(Decision.WAITED, Decision.RETRIED), waited=0.5, usd=0.01)

    async def judge(self, question: str, answers: Sequence[str], answer: str) -> Reply[bool]:
        return dataclasses.replace(
            await super().judge(question, answers, answer), decisions=(Decision.FELL_BACK,), usd=0.002
        )


@dataclass
class WatchedServices(FakeServices):
    """Services that are down from `down_from` to `down_to`, seconds, and whose calls wait for them."""

    service: str = "judge"
    down_from: float = 0.0
    down_to: float = 0.0
    patience: float = 600.0
    reports: list[Waiting | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watch = Watch(OutageSpec(patience_seconds=self.patience), self.reports.append, clock=now)

    def _down(self, service: str) -> bool:
        return service == self.service and self.down_from <= now() < self.down_to

    async def judge(self, question: str, answers: Sequence[str], answer: str) -> Reply[bool]:
        async def call() -> Reply[bool]:
            if self._down("judge"):
                return Reply(None, ToolFailure("judge", FailureKind.CONNECTION, "refused"), attempts=1)
            return await FakeServices.judge(self, question, answers, answer)

        return await self.watch.call("judge", call)

    async def search_image(self, image: Any) -> Reply[Any]:
        async def call() -> Reply[Any]:
            await asyncio.sleep(0.2)
            if self._down("imageSearch"):
                return Reply(None, ToolFailure("imageSearch", FailureKind.CONNECTION, "refused"), attempts=1)
            return await FakeServices.search_image(self, image)

        return await self.watch.call("imageSearch", call)
