"""Attempts at tool calls, step by step."""

from __future__ import annotations

from gog import metrics
from gog_recipes.runtime.ranks import Ranks


class Attempts:
    """Counts the attempts at tool calls of all ranks, without those at the judge.

    Args:
        ranks: that call the tools
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks, self._counted = ranks, (0, 0)

    def since_last(self) -> tuple[int, int]:
        """Attempts, and failed ones among them, since the last call. All ranks at once."""
        tables = [outcomes for tool, outcomes in metrics.attempts_by_outcome().items() if tool != "judge"]
        total = sum(sum(outcomes.values()) for outcomes in tables)
        failed = total - sum(outcomes.get("ok", 0) for outcomes in tables)
        total, failed = self._ranks.all_reduce_sum(total), self._ranks.all_reduce_sum(failed)
        (before, failed_before), self._counted = self._counted, (total, failed)
        return total - before, failed - failed_before
