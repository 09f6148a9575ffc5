"""What `gog compare` draws: one HTML file in the style of the report, without scripts of its own. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gog import significance
from gog_console import formatting
from gog_console.compare import pairs, text
from gog_console.compare.pairs import Comparison, Line
from gog_console.report import bars, page, results
from gog_console.report.markup import Markup, tag

COLUMNS = (
    "Policy",
    "Seeds",
    "n",
    "Accuracy",
    "95 % interval",
    "SD of seeds",
    "pass@k",
    "Tool calls",
    "Time p50",
)


def build(
    names: Sequence[str], table: Sequence[Line], differences: Sequence[Comparison], notes: Sequence[str] = ()
) -> str:
    """Renders the page. notes: what else a reader must know of the runs."""
    benchmarks = list(dict.fromkeys(line.benchmark for line in table))
    several = len({line.setting for line in table}) > 1
    parts = [
        tag("header", tag("h1", "Comparison"), tag("p", ", ".join(names), class_="lead")),
        [_benchmark(name, [line for line in table if line.benchmark == name], several) for name in benchmarks],
        *([made] if (made := _means(table, several)) is not None else []),
        _differences(differences, len(benchmarks) > 1),
        [tag("p", note, class_="note below") for note in notes],
    ]
    body = Markup("".join(str(part) for piece in parts for part in (piece if isinstance(piece, list) else [piece])))
    return page.assemble(f"{', '.join(names)} – comparison", body, {})


def _name(line: Line, several: bool) -> str:
    return f"{formatting.policy(line.policy)} · {line.setting}" if several else formatting.policy(line.policy)


def _benchmark(name: str, lines: Sequence[Line], several: bool) -> Markup:
    drawn = [
        bars.Bar(_name(line, several), line.accuracy.mean, line.ci95, strong=line.policy.startswith("grpo"))
        for line in lines
    ]
    head = tag("tr", [tag("th", column) for column in COLUMNS])
    rows = [_row(line, several) for line in lines]
    table = tag("table", tag("thead", head), tag("tbody", rows), class_="results")
    note = "Intervals: over seeds (Student's t), or over the questions of a single seed (Wilson)."
    return tag(
        "section",
        tag("h2", f"Benchmark {name}"),
        tag("div", bars.whiskers(drawn), class_="card flat"),
        tag("div", table, class_="scroll"),
        results.beside([(line.setting if several else "", line.row) for line in lines]),
        tag("p", note, class_="note below"),
    )


def _means(table: Sequence[Line], several: bool) -> Markup | None:
    """Means over benchmarks, where there are several."""
    found = pairs.means(table)
    if not found:
        return None
    named = [(formatting.policy(each.policy) + (f" · {each.setting}" if several else ""), each) for each in found]
    table_ = results.means_table([(name, each.macro, each.micro) for name, each in named])
    return tag("section", tag("h2", "All benchmarks"), tag("div", table_, class_="scroll"))


def _row(line: Line, several: bool) -> Markup:
    deviation = line.accuracy.deviation
    cells = (
        str(line.accuracy.n),
        formatting.count(line.n),
        tag("b", formatting.percent(line.accuracy.mean)),
        formatting.interval(line.ci95),
        formatting.DASH if math.isnan(deviation) else f"{100 * deviation:.1f}",
        text.passed(line) or formatting.DASH,
        formatting.figure(line.calls),
        formatting.duration(line.seconds),
    )
    return tag("tr", tag("td", _name(line, several), class_="name"), [tag("td", cell, class_="n") for cell in cells])


def _differences(differences: Sequence[Comparison], several: bool) -> Markup:
    if not differences:
        return tag("section", tag("p", "No two rows answer the same questions.", class_="nothing"))
    drawn = [(_pair(one, several), one.found.mean, (one.found.low, one.found.high)) for one in differences]
    head = tag("tr", [tag("th", column) for column in ("Difference", "n", "p", "p, Holm", "Shows", "Verdict")])
    rows = [_tested(one, several) for one in differences]
    note = (
        f"Percentage points on the same questions. Holm: corrected for {len(differences)} comparisons. Shows: the smallest "
        f"true difference that so many seeds and questions show with a chance of {100 * significance.POWER:.0f} %."
    )
    return tag(
        "section",
        tag("h2", "Paired differences"),
        tag("div", bars.forest(drawn), class_="card flat"),
        tag("div", tag("table", tag("thead", head), tag("tbody", rows), class_="results"), class_="scroll"),
        tag("p", note, class_="note below"),
    )


def _pair(one: Comparison, several: bool) -> str:
    return f"{one.a} − {one.b}" + (f" · {one.benchmark}" if several else "")


def _tested(one: Comparison, several: bool) -> Markup:
    found = one.found
    shows = formatting.DASH if math.isinf(found.detectable) else f"{100 * found.detectable:.1f}"
    cells = (
        formatting.count(found.n),
        formatting.p_value(found.p),
        formatting.p_value(one.corrected),
        shows,
        text.verdict(one),
    )
    return tag("tr", tag("td", _pair(one, several), class_="name"), [tag("td", cell, class_="n") for cell in cells])
