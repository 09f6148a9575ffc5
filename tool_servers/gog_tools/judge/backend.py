"""What a back end of the judge server must do. How to write and name one: `gog_tools.serving.backends`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from gog_tools.serving import chat


@runtime_checkable
class Judge(Protocol):
    """Decides whether answers are correct."""

    def reply(self, conversations: Sequence[Sequence[chat.Message]]) -> Sequence[str]:
        """Answers conversations.

        Args:
            conversations: 1 to `max_batch` of them, each with at least one message. As gog sends them: the rules as
                the system message, then one case, which `gog.judging.read_case(messages[-1].text)` takes apart

        Returns:
            The assistant's text for each conversation, in order. A verdict is `Yes` or `No`
            (`gog.judging.read_verdict`); any other text is a judge error for the client, never a wrong answer.

        Raises:
            UserError: for a conversation that is not a case.
            Unavailable: when a retry may succeed.
        """
        ...
