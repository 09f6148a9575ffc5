"""Public benchmarks by name: how many questions each has. The one list of them.

A score over another number of questions is another benchmark, so an evaluation that names one of these checks its size.
The sizes are those over which the paper's scores are possible: each printed score is a whole number of right answers.
"""

from __future__ import annotations

from gog.errors import UserError

SIZES = {"FVQA": 1800, "InfoSeek": 2000, "SimpleVQA": 1013, "MMSearch": 171, "LiveVQA": 2000, "DynVQA": 706}
"""Questions by benchmark, in the order of the paper's columns. Of InfoSeek and LiveVQA a subset, of SimpleVQA the English
part, of DynVQA the English part less nine."""


def named(name: str) -> str | None:
    """The public benchmark of a name, whatever its case, its signs and an ending `test`.

    >>> named("fvqa_test"), named("live-vqa"), named("mmsearch-mini")
    ('FVQA', 'LiveVQA', None)
    """
    plain = "".join(letter for letter in name.lower() if letter.isalnum()).removesuffix("test")
    return next((each for each in SIZES if plain == each.lower()), None)


def check(name: str, found: int, expected: int | None, *, where: str) -> None:
    """Raises UserError where a benchmark has another number of questions than it must have.

    Args:
        name: of the benchmark.
        found: questions in its file.
        expected: what it must have; None for any number.
        where: the file, for the message.
    """
    if expected is not None and found != expected:
        raise UserError(
            f"{found:,} questions, and {name} has {expected:,}",
            where=where,
            remedy="import all of it; for a part or another edition set stages.evaluate.benchmarks: [{split: …, name: …}] "
            "with a name or a size of its own",
        )


def is_cut(name: str, expected: int | None, questions: int | None) -> bool:
    """Whether an evaluation of so many questions would have a row with the name of a public benchmark over a part of it.

    Args:
        name: of the benchmark.
        expected: questions of its file; None for any number.
        questions: that are answered at most; None for all.

    >>> is_cut("fvqa_test", 1800, 100), is_cut("FVQA", 1800, 1800), is_cut("fvqa-100", None, 100)
    (True, False, False)
    """
    return None not in (named(name), expected, questions) and (expected or 0) > (questions or 0)


CUT = "answers a part of a public benchmark under its name: remove questions, or rename it with benchmarks: [{split: …, name: …}]"
"""What is wrong with such an evaluation, and the remedy."""


def check_whole(name: str, expected: int | None, questions: int | None) -> None:
    """Raises UserError where an evaluation `is_cut`, which has its arguments."""
    if is_cut(name, expected, questions):
        problem, _, remedy = CUT.partition(": ")
        raise UserError(
            f"{questions:,} of {name}'s {expected:,} questions: {problem}", where="questions", remedy=remedy
        )
