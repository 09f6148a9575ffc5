"""The back end `world` of the judge: a comparison of words.

Yes when the given answer equals an accepted one after normalisation. It neither reads the rules nor weighs meanings;
questions that need either need a judge model.
"""

from __future__ import annotations

from collections.abc import Sequence

from gog import judging
from gog.errors import UserError
from gog_tools.serving import chat


class WorldJudge:
    """A Judge that compares words."""

    def reply(self, conversations: Sequence[Sequence[chat.Message]]) -> list[str]:
        """`Yes` or `No` for each conversation. Raises UserError for one that does not end in a case."""
        return [verdict(messages[-1].text) for messages in conversations]


def verdict(content: str) -> str:
    """`Yes` or `No` for a case as gog.judging writes it. Raises UserError for any other text."""
    try:
        _, accepted, answer = judging.read_case(content)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            "the last message is not a case", where="messages", remedy="send what gog.judging.messages() makes"
        ) from None
    given = judging.normalise(answer)
    return "Yes" if given and given in {judging.normalise(item) for item in accepted} else "No"
