"""What an evaluation says of a policy besides its accuracy: the one list, for the report and for `gog compare`. Pure.

A figure stands in the row of `results.json` that has the accuracy. One that no row of a table has is left out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gog_console import formatting
from gog_console.report.model import Row, number


@dataclass(frozen=True)
class Figure:
    """One column beside a score."""

    name: str
    """Its heading, and its name in the output for programs."""
    path: tuple[str, ...]
    """Where it stands in a row."""
    meaning: str
    """What it is, in a phrase."""
    show: Callable[[float | None], str] = formatting.percent
    """Value -> text."""

    def of(self, row: Row) -> float | None:
        """Its value in a row; None where the row has none."""
        return value(row, self.path)


def value(row: Row, path: Sequence[str]) -> float | None:
    """A finite number of a row by its path; None where there is none."""
    found: object = row
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return number(found)


def _dollars(usd: float | None) -> str:
    return formatting.DASH if not usd else formatting.dollars(usd)


FIGURES = (
    Figure("No search", ("behaviour", "none"), "questions that were answered without a search"),
    Figure("One kind", ("behaviour", "single"), "questions with one kind of search: whole image, candidate or text"),
    Figure("Mixed", ("behaviour", "mixed"), "questions with several kinds of search"),
    Figure("Selection", ("choice_accuracy",), "first choice among two or more candidates that is right"),
    Figure("Gaze", ("gaze_accuracy",), "gazes at what the question is about, where the dataset marks its region"),
    Figure("Looks again", ("reflection_ratio",), "wrong gazes after which the policy looked elsewhere"),
    Figure("Tokens", ("tokens_mean",), "generated per question", formatting.figure),
    Figure(
        "Cost-aware", ("cost_aware_score",), "100 · accuracy² / (1,000 tokens + 2 · tool rounds + 1)", formatting.figure
    ),
    Figure("Pages read", ("page_success",), "pages tried by text searches that could be read"),
    Figure("$/question", ("usd_per_question",), "charged by tools and judge", _dollars),
    Figure("$/correct", ("usd_per_correct",), "charged per correct answer", _dollars),
)


def shown(rows: Sequence[Row]) -> list[Figure]:
    """The figures that some of the rows have; an amount of money only where something was charged."""
    return [each for each in FIGURES if any(each.show(each.of(row)) != formatting.DASH for row in rows)]
