"""The outcome of a check: a row for each server, and what follows for the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gog.tool_check.config import Target
from gog.tool_check.diagnosis import Problem
from gog.wording import plural

Outcome = Literal["passed", "failed", "unavailable"]
"""passed: every tool answered; failed: a user has to correct something; unavailable: it may pass."""
MOST_SUMMARY = 2_000
"""Characters of a summary: it becomes a condition's message by way of a pod's termination message, which holds 4,096."""


@dataclass(frozen=True)
class Result:
    """What one server answered."""

    target: Target
    """The server."""
    problem: Problem | None = None
    """Why it cannot be used; None if it can."""
    seconds: float = 0.0
    """Latency of the call."""
    server: str = ""
    """Name and version of the server, where it reports them."""
    model: str = ""
    """Model that answered, where the server reports it."""
    usd: float = 0.0
    """What the call cost, in US dollars."""
    vendor: str = ""
    """Vendor that was called; empty for none."""
    calls: int = 0
    """Requests that the server made of vendors."""
    credit_usd: float | None = None
    """What is left on the vendor's account, in US dollars; None if it is not reported."""
    answer: str = ""
    """What came back, in a line."""
    notes: tuple[str, ...] = ()
    """What does not prevent its use and yet deserves a look."""

    def as_dict(self) -> dict[str, Any]:
        """For programs: names are only ever added."""
        own = {name: value for name, value in vars(self).items() if name not in ("target", "problem")}
        place = {"name": self.target.name, "url": self.target.url, "backend": self.target.backend}
        return {**place, "ok": self.problem is None, **own, "problem": self.problem and asdict(self.problem)}


@dataclass(frozen=True)
class Report:
    """The outcome for all servers."""

    results: tuple[Result, ...]
    """One for each server."""
    seconds: float = 0.0
    """How long the check took."""

    @property
    def problems(self) -> Sequence[tuple[Target, Problem]]:
        """What is wrong, what a user has to correct first."""
        found = [(each.target, each.problem) for each in self.results if each.problem is not None]
        return sorted(found, key=lambda each: not each[1].is_permanent)

    @property
    def outcome(self) -> Outcome:
        """What follows for the run."""
        problems = self.problems
        return "passed" if not problems else "failed" if problems[0][1].is_permanent else "unavailable"

    @property
    def summary(self) -> str:
        """The outcome in a sentence."""
        problems = self.problems
        if not problems:
            cost = sum(each.usd for each in self.results)
            paid = f", for {cost:.4f} USD" if cost else ""
            slowest = max(self.results, key=lambda each: each.seconds, default=None)
            last = (
                f", the slowest ({slowest.target.title}) after {slowest.seconds:.2f} s" if slowest is not None else ""
            )
            return f"{plural(len(self.results), 'server answers', 'servers answer')}{last}{paid}"
        lines = [f"{target.where}: {each.what} ({each.remedy})" for target, each in problems]
        text = "; ".join(lines)
        return text if len(text) <= MOST_SUMMARY else f"{text[: MOST_SUMMARY - 1]}…"

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        rows = [each.as_dict() for each in self.results]
        return {"outcome": self.outcome, "message": self.summary, "seconds": self.seconds, "tools": rows}
