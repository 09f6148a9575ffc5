"""What the calls of a run cost, and the budgets that stop a tool before its vendor does.

An `Account` belongs to one process. Before a request it checks the budgets, counting what this process has spent, what
other processes of the run have reported (`gog.calls.spend_log`), and what is under way at the price of the last call.
Afterwards it is charged. What costs nothing is not stopped by a budget of money. Once such a budget is used up, a server
whose price is not known yet gets one request at a time, and the others wait for what it costs. A budget can be exceeded
by what other processes spend between two reports, and before the first price is known by the requests under way.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gog.spec import BudgetSpec

CREDIT_SECONDS = 60.0
"""Seconds for which a tool without credit is not called."""
ROUNDING = 1e-9
"""US dollars; sums of amounts differ by less."""


MOST_CALLS, MOST_USD = 10**15, 1e12
"""Amounts beyond these are cut, so that no sum of reports overflows."""


class Amount(BaseModel):
    """Calls and their cost."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    calls: int = Field(0, ge=0, le=MOST_CALLS)
    """Requests; where a back end reports it, calls of its vendor."""
    usd: float = Field(0.0, ge=0, le=MOST_USD)
    """US dollars."""

    def __add__(self, other: Amount) -> Amount:
        return Amount(calls=min(self.calls + other.calls, MOST_CALLS), usd=min(self.usd + other.usd, MOST_USD))


Word = Annotated[str, Field(max_length=100)]


class Spend(BaseModel):
    """Amounts by tool and day."""

    model_config = ConfigDict(extra="forbid")

    tools: dict[Word, dict[Word, Amount]] = Field(default_factory=dict, max_length=100)
    """{tool: {day in UTC, as 2026-11-28: amount}}."""

    def add(self, tool: str, day: str, amount: Amount) -> None:
        """Adds an amount."""
        days = self.tools.setdefault(tool, {})
        days[day] = days.get(day, Amount()) + amount

    def total(self, tool: str = "", day: str = "") -> Amount:
        """The amount of one tool and day; empty for all of them."""
        chosen = (days for name, days in self.tools.items() if tool in ("", name))
        parts = (amount for days in chosen for when, amount in days.items() if day in ("", when))
        return sum(parts, Amount())

    @classmethod
    def sum_of(cls, parts: list[Spend]) -> Spend:
        """All parts together."""
        whole = cls()
        for part in parts:
            for tool, days in part.tools.items():
                for day, amount in days.items():
                    whole.add(tool, day, amount)
        return whole


@dataclass
class Account:
    """What one process spends, within the run's budgets. Used in one thread."""

    budgets: Mapping[str, BudgetSpec] = field(default_factory=dict)
    """Budget of each tool that has one; under the empty name that of all tools and the judge together."""
    now: Callable[[], float] = time.time
    """Seconds since 1970."""
    own: Spend = field(default_factory=Spend)
    """Spent by this process."""
    others: Spend = field(default_factory=Spend)
    """Spent by the run's other processes, earlier ones included, as last reported."""
    _under_way: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Requests under way, by tool."""
    _credit: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By tool, US dollars that were left on the vendor's account, and when that was reported."""
    prices: dict[str, float] = field(default_factory=dict)
    """Cost of the last request that was answered or charged in US dollars, by tool; before it that of the manifest, if it
    has one."""
    _released: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """Set, and replaced, when a request of the tool ends."""

    @property
    def is_limited(self) -> bool:
        """Whether there is any budget."""
        return any(budget.is_set for budget in self.budgets.values())

    @property
    def day(self) -> str:
        """The day, in UTC."""
        return datetime.fromtimestamp(self.now(), UTC).strftime("%Y-%m-%d")

    def used_up(self, tool: str) -> str:
        """Why no request of a tool may be sent now: the budget that it would exceed; an empty text if it may be sent."""
        for name, budget in self._budgets_of(tool):
            if limit := self._exceeded(name, budget, tool):
                return f"tools{name and f'.{name}'}.budget.{limit} is used up"
        return ""

    def reserve(self, tool: str) -> str:
        """Reserves a request, which `release` must follow; returns why none may be sent, or an empty text."""
        reason = self.used_up(tool)
        if not reason:
            self._under_way[tool] += 1
        return reason

    def must_learn_price(self, tool: str) -> bool:
        """Whether the money is used up, and a request under way will show whether the tool costs any."""
        if self._price(tool) is not None or not self._under_way[tool]:
            return False
        return any(
            most is not None and self._spent(name, day).usd >= most
            for name, budget in self._budgets_of(tool)
            for day, most in (("", budget.usd), (self.day, budget.usd_per_day))
        )

    async def wait_for_price(self, tool: str) -> None:
        """Waits while `must_learn_price`."""
        while self.must_learn_price(tool):
            await self._released[tool].wait()

    def no_credit(self, tool: str) -> str:
        """Why the vendor's account does not pay for the next request; an empty text if it does, or if that is not known.

        What an account has left is forgotten after CREDIT_SECONDS: it may have been topped up, which an answer will tell.
        """
        left, reported = self._credit.get(tool, (math.inf, 0.0))
        price = self._price(tool) or 0.0
        if left >= price or self.now() - reported >= CREDIT_SECONDS:
            return ""
        return f"{left:g} USD are left on the account, and a call costs {price:g} USD"

    def release(self, tool: str) -> None:
        """Ends a reservation."""
        self._under_way[tool] -= 1
        if tool in self._released:
            self._released.pop(tool).set()

    def charge(self, tool: str, calls: int, usd: float, credit: float | None = None, *, is_price: bool = True) -> None:
        """Adds what a request has cost.

        Args:
            tool: name under which it is charged.
            calls: requests, or calls of the vendor.
            usd: US dollars.
            credit: US dollars left on the vendor's account; None if not known.
            is_price: whether the next request will probably cost as much; False for a failure that was free.
        """
        if credit is not None:
            self._credit[tool] = credit, self.now()
        self.own.add(tool, self.day, Amount(calls=calls, usd=usd))
        if is_price:
            self.prices[tool] = usd

    def _budgets_of(self, tool: str) -> list[tuple[str, BudgetSpec]]:
        """The budgets that a tool must keep to, by name: the run's, and its own."""
        return [(name, self.budgets[name]) for name in ("", tool) if name in self.budgets]

    def _spent(self, name: str, day: str) -> Amount:
        """What counts against a budget, requests under way included."""
        under_way = self._under_way if name == "" else {name: self._under_way[name]}
        pending = Amount(
            calls=sum(under_way.values()),
            usd=sum(count * (self._price(each) or 0.0) for each, count in under_way.items()),
        )
        return self.own.total(name, day) + self.others.total(name, day) + pending

    def _exceeded(self, name: str, budget: BudgetSpec, tool: str) -> str:
        """The limit of a budget that the next request of a tool would exceed; empty for none."""
        price = self._price(tool)
        for day, calls, usd in (("", "calls", "usd"), (self.day, "callsPerDay", "usdPerDay")):
            spent = self._spent(name, day)
            most_calls = budget.calls_per_day if day else budget.calls
            most_usd = budget.usd_per_day if day else budget.usd
            if most_calls is not None and spent.calls + 1 > most_calls:
                return f"{calls} ({most_calls:,})"
            if most_usd is not None and price and spent.usd + price > most_usd + ROUNDING:
                return f"{usd} ({most_usd:g} USD)"
        return ""

    def _price(self, tool: str) -> float | None:
        """What the next request of a tool will probably cost; None if there was none in the whole run."""
        earlier = self.others.total(tool)
        average = earlier.usd / earlier.calls if earlier.calls else None
        return self.prices.get(tool, average)
