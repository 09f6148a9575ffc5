"""The back end `match` of the judge: a normalised comparison that needs no model (`gog.answers`).

Yes only where an answer certainly means an accepted one: numbers, units, dates, names, lists and the like are compared
as what they are. It does not understand paraphrases or translations, so its accuracies are lower bounds.
"""

from __future__ import annotations

from collections.abc import Sequence

from gog import judging
from gog.answers import match
from gog.errors import UserError
from gog_tools.serving import chat


class MatchJudge:
    """A Judge that compares normalised answers."""

    def reply(self, conversations: Sequence[Sequence[chat.Message]]) -> list[str]:
        """`Yes` or `No` for each conversation. Raises UserError for one that does not end in a case."""
        return [verdict(messages[-1].text) for messages in conversations]


def verdict(content: str) -> str:
    """`Yes` or `No` for a case as gog.judging writes it. Raises UserError for any other text."""
    try:
        question, accepted, answer = judging.read_case(content)
    except (ValueError, RecursionError):
        raise UserError(
            "the last message is not a case", where="messages", remedy="send what gog.judging.messages() makes"
        ) from None
    return "Yes" if match.decide(question, accepted, answer) else "No"
