"""Difficulty of the training questions for the SFT policy. Pure: Data -> Markup.

Levels are one bar. Its never-solved part is hatched: it belongs to level 2, but its groups give no gradient until a
sample succeeds. The histogram shows the counts from which the levels were derived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gog import levels, wording
from gog.levels import Graded
from gog_console import formatting
from gog_console.report import bars, overview, summary
from gog_console.report.bars import legend
from gog_console.report.markup import Markup, tag
from gog_console.report.model import Data


def section(data: Data) -> Markup:
    """Difficulty of the training questions under the SFT policy."""
    graded = data.main("stratify", data.levels) or ()
    stage = data.stage("stratify")
    counts = summary.level_counts(graded, stage.meta if stage else None)
    title = tag("h2", "Difficulty of the training questions")
    if not sum(counts.values()):
        return tag("section", title, overview.nothing(data, "stratify"), id="levels")
    never = summary.unsolved(graded, stage.meta if stage else None)
    warning = levels.warning(graded)
    return tag(
        "section",
        title,
        tag("p", _levels_sentence(counts, never, _ungraded(graded)), class_="lead"),
        tag("p", f"Warning: {warning}.", class_="lead") if warning else None,
        tag("div", _level_bar(counts, never), _pass_rates(graded) if graded else None, class_="pair"),
        id="levels",
    )


def _ungraded(graded: Sequence[Graded]) -> int:
    return sum(line.level == "unknown" for line in graded)


def _levels_sentence(counts: Mapping[str, int], never: int, ungraded: int) -> str:
    total = sum(counts.values())
    spoiled = (
        f" {wording.plural(ungraded, 'question')} could not be graded because every sample was excluded."
        if ungraded
        else ""
    )
    return (
        f"{total:,} questions by how often the SFT policy solves them: {counts['easy']:,} easy, {counts['1']:,} of "
        f"level 1, {counts['2']:,} of level 2, of which {never:,} were never solved (hatched): such a group has no "
        f"accuracy signal until one of its samples succeeds.{spoiled}"
    )


def _level_bar(counts: Mapping[str, int], never: int) -> Markup:
    total = sum(counts.values())
    pieces = [
        ("Easy", counts["easy"], "level0"),
        ("Level 1", counts["1"], "level1"),
        ("Level 2, solved at least once", counts["2"] - never, "level2"),
        ("Level 2, never solved", never, "hatched"),
    ]
    bar = bars.stacked([("", [bars.Part(name, count / total, style) for name, count, style in pieces])], height=34)
    rows = [
        tag(
            "tr",
            tag("td", legend([(name, style)])),
            tag("td", f"{count:,}", class_="n"),
            tag("td", formatting.percent(count / total), class_="n"),
        )
        for name, count, style in pieces
    ]
    return tag("div", bar, tag("table", tag("tbody", rows), class_="counts"), class_="card flat")


def _pass_rates(graded: Sequence[Graded]) -> Markup:
    """Questions by number of solved samples, for those with the usual number of valid samples."""
    samples = max(line.valid for line in graded)
    whole = [line for line in graded if line.valid == samples]
    counts = [sum(line.solved == solved for line in whole) for solved in range(samples + 1)]
    level_of = {line.solved: line.level for line in whole}
    styles = {"easy": "level0", "1": "level1", "2": "level2"}
    fills = [
        "hatched" if solved == 0 else styles.get(str(level_of.get(solved)), "level2") for solved in range(samples + 1)
    ]
    rest = len(graded) - len(whole)
    note = f"Questions by samples solved, of {samples}."
    spoiled = f" {rest:,} with fewer valid samples are not drawn." if rest else ""
    drawing = bars.histogram(counts, fills, [f"{solved}" for solved in range(samples + 1)])
    return tag("div", drawing, tag("p", note + spoiled, class_="note"), class_="card flat")
