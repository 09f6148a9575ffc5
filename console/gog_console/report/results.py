"""Evaluation of the policies: intervals, paired differences, kinds of question, behaviour. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gog import served_models, wording
from gog_console import figures, formatting
from gog_console.report import bars, overview, summary, training
from gog_console.report.markup import Child, Markup, tag
from gog_console.report.model import Data, Evaluation, Row, number, policy_order

COLUMNS = (
    ("Policy", ""),
    ("n", "questions"),
    ("Accuracy", "share of answers that the judge accepts"),
    (f"95{formatting.THIN}% interval", "over questions"),
    ("Format", "trajectories well formed from the first turn to the answer"),
    ("Tool calls", "per question"),
    ("Time p50", "median duration of an episode, with all others running concurrently"),
    ("p95", "95th percentile"),
    ("Failed calls", "after all retries"),
)

SFT_WEIGHTS = ("direct", "whole-image", "first-candidate")
"""Policies that use the SFT weights with other rules."""
MOST_DIFFERENCES = 6
"""Number of pairs beyond which only those of the trained policy are drawn."""


def evaluation(data: Data) -> Markup:
    """One table per benchmark with arms as additional rows, then differences and kinds of question."""
    found = data.by_arm("evaluate", data.evaluations)
    title = tag("h2", "Evaluation")
    if not found:
        return tag("section", title, overview.nothing(data, "evaluate"), id="evaluation")
    rows = [(arm, row) for arm, kept in found.items() for row in _in_order(kept.rows)]
    benchmarks = list(dict.fromkeys(str(row.get("benchmark") or "") for _, row in rows))
    blocks = [
        _benchmark(name, [pair for pair in rows if str(pair[1].get("benchmark") or "") == name]) for name in benchmarks
    ]
    return tag(
        "section",
        title,
        blocks,
        [tag("p", text, class_="note below") for text in _changes(found)],
        _macro(found[""].means) if "" in found and found[""].means else None,
        tag("div", _differences(found), _kinds(rows, benchmarks), class_="pair"),
        id="evaluation",
    )


def behaviours(data: Data) -> Markup:
    """How trajectories search, before and after reinforcement learning."""
    title = tag("h2", "Behaviour before and after")
    cards = [_shares(name, note, rows) for name, note, rows in (_sampled(data), _evaluated(data)) if rows]
    if not cards:
        return tag("section", title, overview.nothing(data, "grpo"), id="behaviour")
    text = "Kinds of search: the whole image, a selected candidate, text. One kind: the same one throughout."
    keys = bars.legend([(name, style) for _, name, style in training.BEHAVIOURS])
    return tag("section", title, tag("p", text, class_="lead"), tag("div", cards, class_="pair"), keys, id="behaviour")


def _benchmark(name: str, rows: Sequence[tuple[str, Row]]) -> Markup:
    head = tag("tr", [tag("th", column, title=meaning or None) for column, meaning in COLUMNS])
    body = [_row(arm, row) for arm, row in rows]
    table = tag("table", tag("thead", head), tag("tbody", body), class_="results")
    title = tag("h3", f"Benchmark {name}") if name else None
    return tag(
        "div", title, tag("div", table, class_="scroll"), beside(rows), tag("p", _reading(rows), class_="note below")
    )


def beside(rows: Sequence[tuple[str, Row]]) -> Markup | None:
    """Table of how policies search and what their answers cost. rows: with what follows the name of the policy."""
    shown = figures.shown([row for _, row in rows])
    if not shown:
        return None
    head = tag("tr", tag("th", "Policy"), [tag("th", each.name, title=each.meaning) for each in shown])
    body = [
        tag(
            "tr",
            tag("td", _named(more, row), class_="name"),
            [tag("td", each.show(each.of(row)), class_="n") for each in shown],
        )
        for more, row in rows
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", body), class_="results"), class_="scroll")


def _named(more: str, row: Row) -> str:
    return formatting.policy(row["policy"]) + (f" · {more}" if more else "")


def _reading(rows: Sequence[tuple[str, Row]]) -> str:
    """Note on what the table includes and excludes."""
    untrained = [formatting.policy(row["policy"]) for arm, row in rows if not arm and row["policy"] in SFT_WEIGHTS]
    weights = f"{', '.join(untrained)}: the SFT weights with other rules. " if untrained else ""
    undecided = sum(number(row.get("undecided")) or 0 for _, row in rows)
    left_out = f"{formatting.count(undecided)} answers without a verdict are excluded. " if undecided else ""
    speechless = "".join(_speechless(row) for _, row in rows)
    passed = "".join(_passed(arm, row) for arm, row in rows)
    return f"{weights}{speechless}{left_out}{passed}A question with a tool failure counts with the answer that the policy gave."


def _passed(arm: str, row: Row) -> str:
    """Note on a policy that answered each question several times: the chance that one of k answers is right."""
    found = row.get("pass_at")
    shares = {k: number(share) for k, share in found.items() if k != "1"} if isinstance(found, Mapping) else {}
    if not shares:
        return ""
    return f"{_named(arm, row)}: {', '.join(f'pass@{k} {formatting.percent(share)}' for k, share in shares.items())}. "


def _speechless(row: Row) -> str:
    """Note on a policy whose accuracy is limited by its format rather than by its knowledge."""
    formed = number(row.get("format_mean"))
    if formed is None or formed >= 0.5:
        return ""
    shown = formatting.percent(formed)
    return f"{formatting.policy(row['policy'])} is well formed in only {shown} of its episodes; an episode without an answer is wrong. "


def _changes(found: Mapping[str, Evaluation]) -> list[str]:
    """Notes on judges and endpoints that answered as several models."""
    changes = [served_models.change(name, counts) for kept in found.values() for name, counts in kept.served_by.items()]
    return [f"{text[0].upper()}{text[1:]}. Its answers are not those of one model." for text in changes if text]


def _row(arm: str, row: Row) -> Markup:
    ends = summary.interval(row.get("ci95"))
    cells = (
        formatting.count(number(row.get("n"))),
        tag("b", formatting.percent(number(row.get("accuracy")))),
        formatting.interval(ends),
        formatting.percent(number(row.get("format_mean"))),
        formatting.figure(number(row.get("tool_calls_mean"))),
        formatting.duration(number(row.get("latency_p50_s"))),
        formatting.duration(number(row.get("latency_p95_s"))),
        formatting.percent(number(row.get("tool_failure_ratio"))),
    )
    style = "trained" if row["policy"] == "grpo" and not arm else None
    return tag(
        "tr", tag("td", _named(arm, row), class_="name"), [tag("td", cell, class_="n") for cell in cells], class_=style
    )


def _macro(means: Sequence[Row]) -> Markup:
    """Means over benchmarks of an evaluation."""
    shown = [(formatting.policy(row["policy"]), number(row.get("macro")), number(row.get("micro"))) for row in means]
    return tag("div", tag("h3", "All benchmarks"), means_table(shown))


def means_table(means: Sequence[tuple[str, float | None, float | None]]) -> Markup:
    """Table of means over benchmarks. means: name of a policy, macro mean (equal weight per benchmark), micro mean (per question)."""
    lines = [
        tag(
            "tr", tag("td", name, class_="name"), [tag("td", formatting.percent(share), class_="n") for share in shares]
        )
        for name, *shares in means
    ]
    head = tag("tr", tag("th", "Policy"), tag("th", "Macro mean"), tag("th", "Micro mean"))
    return tag("table", tag("thead", head), tag("tbody", lines), class_="results")


def _differences(found: Mapping[str, Evaluation]) -> Child:
    """Paired differences on the same questions; grey where the interval contains zero."""
    rows: list[tuple[str, float, tuple[float, float]]] = []
    several = len({row.get("benchmark") for kept in found.values() for row in kept.rows}) > 1
    for arm, kept in found.items():
        for row in sorted(kept.comparisons, key=lambda row: (row["a"] != "grpo", row["b"] != "sft")):
            difference, ends = number(row.get("difference")), summary.interval(row.get("ci95"))
            if difference is None or ends is None:
                continue
            name = f"{formatting.policy(row['a'])} − {formatting.policy(row['b'])}"
            where = [text for text in (arm, str(row.get("benchmark") or "") if several else "") if text]
            rows.append((" · ".join([name, *where]), difference, ends))
    if not rows:
        return None
    left_out = len(rows) > MOST_DIFFERENCES
    rows = [row for row in rows if not left_out or formatting.policy("grpo") in row[0]]
    note = (
        f"Percentage points on the same questions, with 95{formatting.THIN}% bootstrap intervals; "
        f"grey where the interval contains zero.{' The other pairs are in summary.json.' if left_out else ''}"
    )
    return tag(
        "div", tag("h3", "Paired differences"), bars.forest(rows), tag("p", note, class_="note"), class_="card flat"
    )


def _kinds(rows: Sequence[tuple[str, Row]], benchmarks: Sequence[str]) -> list[Markup | None]:
    return [
        _by_kind(
            name if len(benchmarks) > 1 else "",
            [row for arm, row in rows if not arm and str(row.get("benchmark") or "") == name],
        )
        for name in benchmarks
    ]


def _by_kind(benchmark: str, rows: Sequence[Row]) -> Markup | None:
    """Accuracy by kind of question and policy, as a heat map."""
    tables = {str(row["policy"]): row.get("by_kind") for row in rows if isinstance(row.get("by_kind"), Mapping)}
    kinds = list(dict.fromkeys(str(kind) for table in tables.values() if isinstance(table, Mapping) for kind in table))
    if not kinds:
        return None
    head = tag(
        "tr", tag("th", "Kind of question"), tag("th", "n"), [tag("th", formatting.policy(name)) for name in tables]
    )
    body = []
    for kind in kinds:
        cells = [_cell(table, kind) for table in tables.values()]
        n = next((count for _, count in cells if count is not None), None)
        shades = [tag("td", formatting.percent(share, 0), class_=f"n {_shade(share)}") for share, _ in cells]
        body.append(tag("tr", tag("td", kind, class_="name"), tag("td", formatting.count(n), class_="n"), shades))
    table = tag("table", tag("thead", head), tag("tbody", body), class_="results heat")
    title = f"By kind of question, {benchmark}" if benchmark else "By kind of question"
    return tag("div", tag("h3", title), tag("div", table, class_="scroll"), class_="card flat")


def _cell(table: object, kind: str) -> tuple[float | None, float | None]:
    kept = table.get(kind) if isinstance(table, Mapping) else None
    return (number(kept.get("accuracy")), number(kept.get("n"))) if isinstance(kept, Mapping) else (None, None)


def _shade(share: float | None) -> str:
    return "" if share is None else f"h{round(10 * share)}"


def _in_order(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (str(row.get("benchmark") or ""), policy_order(str(row["policy"]))))


Shares = list[tuple[str, Mapping[str, object]]]


def _sampled(data: Data) -> tuple[str, str, Shares]:
    """Mean behaviour shares of the first and the last steps of GRPO."""
    rows = data.main("grpo", data.curves) or ()
    size = max(1, min(summary.ENDS, len(rows) // 2))
    pairs: Shares = []
    for name, part in (("first", rows[:size]), ("last", rows[-size:])):
        kept = [row["behaviour"] for row in part if isinstance(row.get("behaviour"), Mapping)]
        if kept:
            pairs.append((name, {key: sum(number(one.get(key)) or 0 for one in kept) / len(kept) for key in kept[0]}))
    return (
        "Sampled, during training",
        f"first and last {wording.plural(size, 'step')} of GRPO; hard questions",
        pairs,
    )


def _evaluated(data: Data) -> tuple[str, str, Shares]:
    """Behaviour of the SFT and the trained policy on held-out questions, with greedy decoding."""
    found = data.main("evaluate", data.evaluations) or Evaluation(())
    rows: Shares = [
        (formatting.policy(policy), row["behaviour"])
        for policy in ("sft", "grpo")
        for row in found.rows
        if row["policy"] == policy and isinstance(row.get("behaviour"), Mapping)
    ]
    return "Evaluated, on held-out questions", "greedy decoding", rows


def _shares(title: str, note: str, rows: Shares) -> Markup:
    drawn = [
        (name, [bars.Part(words, number(kept.get(key)) or 0.0, style) for key, words, style in training.BEHAVIOURS])
        for name, kept in rows
    ]
    return tag(
        "div", tag("h3", title), bars.stacked(drawn, height=26), tag("p", note, class_="note"), class_="card flat"
    )
