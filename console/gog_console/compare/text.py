"""What `gog compare` prints: the table, then every difference. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from gog import significance
from gog_console import figures, formatting
from gog_console.compare import pairs
from gog_console.compare.pairs import Comparison, Line

HEAD = (
    "run",
    "policy",
    "benchmark",
    "seeds",
    "n",
    "accuracy",
    "95 % interval",
    "seed sd",
    "pass@k",
    "calls",
    "p50",
)


def lines(table: Sequence[Line], differences: Sequence[Comparison]) -> Iterator[str]:
    """The whole output, line by line."""
    yield from _columns([HEAD, *map(_row, table)], numbers_from=3)
    shown = figures.shown([line.row for line in table])
    if shown:
        yield ""
        head = ("run", "policy", "benchmark", *(each.name.lower() for each in shown))
        yield from _columns([head, *(_beside(line, shown) for line in table)], numbers_from=3)
    over_all = pairs.means(table)
    if over_all:
        yield ""
        rows = [
            (each.setting, each.policy, f"{100 * each.macro:.1f} %", f"{100 * each.micro:.1f} %") for each in over_all
        ]
        head = ("run", "policy", "macro mean of benchmarks", "micro mean of questions")
        yield from _columns([head, *rows], numbers_from=2)
    if differences:
        yield ""
        head = ("difference, points", "benchmark", "n", "a - b", "95 % interval", "p", "p, Holm", "shows", "verdict")
        yield from _columns([head, *map(_difference, differences)], numbers_from=2)
        yield ""
        yield (
            f"shows: the smallest true difference that so many seeds and questions show with a chance of "
            f"{100 * significance.POWER:.0f} %, at the {100 * significance.LEVEL:.0f} % level. "
            f"p, Holm: corrected for {len(differences)} comparison{'s' if len(differences) > 1 else ''}."
        )


def verdict(one: Comparison) -> str:
    """What a comparison shows, in two or three words."""
    if one.corrected < significance.LEVEL:
        return "higher" if one.found.mean > 0 else "lower"
    return "not shown"


def pair(one: Comparison) -> str:
    """Names of the two rows."""
    return f"{one.a} - {one.b}"


def passed(line: Line) -> str:
    """pass@k for each k above 1: `@2 61.0 @4 70.5`; empty for one answer to each question."""
    return " ".join(f"@{k} {100 * share:.1f}" for k, share in line.passed.items())


def _row(line: Line) -> tuple[str, ...]:
    deviation = line.accuracy.deviation
    return (
        line.setting,
        line.policy,
        line.benchmark,
        str(line.accuracy.n),
        f"{line.n:,}",
        f"{100 * line.accuracy.mean:.1f} %",
        f"{100 * line.ci95[0]:.1f} to {100 * line.ci95[1]:.1f}",
        "" if math.isnan(deviation) else f"{100 * deviation:.1f}",
        passed(line),
        "" if line.calls is None else f"{line.calls:.2f}",
        "" if line.seconds is None else formatting.duration(line.seconds),
    )


def _beside(line: Line, shown: Sequence[figures.Figure]) -> tuple[str, ...]:
    cells = (each.show(each.of(line.row)).replace(formatting.THIN, " ") for each in shown)
    return (line.setting, line.policy, line.benchmark, *cells)


def _difference(one: Comparison) -> tuple[str, ...]:
    found = one.found
    return (
        pair(one),
        one.benchmark,
        f"{found.n:,}",
        f"{100 * found.mean:+z.1f}",
        f"{100 * found.low:+z.1f} to {100 * found.high:+z.1f}",
        formatting.p_value(found.p),
        formatting.p_value(one.corrected),
        "" if math.isinf(found.detectable) else f"{100 * found.detectable:.1f}",
        verdict(one),
    )


def _columns(rows: Sequence[Sequence[str]], *, numbers_from: int) -> Iterator[str]:
    """Rows in columns, without those that are empty in every row but the first; figures end at the right."""
    used = [at for at in range(len(rows[0])) if any(row[at] for row in rows[1:])]
    widths = {at: max(len(row[at]) for row in rows) for at in used}
    for row in rows:
        cells = [row[at].rjust(widths[at]) if at >= numbers_from else row[at].ljust(widths[at]) for at in used]
        yield "  ".join(cells).rstrip()
