"""Turns at which a model's server fails time and again while it samples others: their question is skipped, by name.

Without a bound such a turn would be sampled again for ever, because every success of another one ends what looked like
an outage. An outage is noticed, and waited out, after fewer failures (`gog.outage`). A turn that is the only one left and
kills its server each time looks like an outage, too: so it is sent only to a server that says it is well, and what fails
then is counted by the turn.
"""

from __future__ import annotations

from dataclasses import dataclass

from gog import outage
from gog.errors import QuestionSkipped
from gog.tool_types import FailureKind, ToolFailure

MOST_FAILURES = 2 * outage.FAILURES
"""Calls for one turn that may fail."""
BY_THE_TURN = (FailureKind.TIMEOUT, FailureKind.CONNECTION, FailureKind.SERVER_ERROR, FailureKind.MALFORMED)
"""Failures that a turn may cause, and no limit of rate and no breaker does."""


@dataclass
class TurnFailures:
    """The failures of one turn so far."""

    where: str
    """Field of the manifest that names the server."""
    count: int = 0
    """How many there were."""

    killed: bool = False
    """Whether the newest failure looks like the death of the server."""

    def note(self, failure: ToolFailure) -> None:
        """Counts a failure. Raises QuestionSkipped where the server is up and the turn fails nevertheless."""
        self.count += failure.kind in BY_THE_TURN
        self.killed = failure.kind in (FailureKind.CONNECTION, FailureKind.SERVER_ERROR)
        if self.count >= MOST_FAILURES:
            what = f"the model's server fails at it, {self.count} times in a row: {failure.words}"
            raise QuestionSkipped(what, where=self.where)
