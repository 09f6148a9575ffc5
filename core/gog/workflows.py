"""Baselines that search by rule and let the model answer only. Pure.

    full_search   the whole image, then the question with the first title that was found, as search workflows do

A workflow writes the first turns of an episode in place of the model (`gog.agent.Workflow`).
"""

from __future__ import annotations

from collections.abc import Sequence

from gog import prompts
from gog.dataset import Question
from gog.trajectory import Turn

CALLS = 2
"""Tool calls of `full_search`, after which the model has none left: it must answer."""


def full_search(question: Question, turns: Sequence[Turn], style: prompts.Style) -> str | None:
    """Searches the whole image, then for text; None after that."""
    if not turns:
        return f"{_think(style)}<img_search><img></img_search>"
    if len(turns) > 1:
        return None
    seen = turns[0].observation
    title = seen.results[0].title if seen is not None and seen.results else ""
    query = prompts.inert(" ".join(filter(None, (question.question, title))))
    return f"{_think(style)}<text_search>{query}</text_search>"


def _think(style: prompts.Style) -> str:
    return f"<think>{'search' if style == 'terse' else 'Written by the workflow.'}</think>"
