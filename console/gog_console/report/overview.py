"""Top of the page: the run, its outcome, and its main results. Pure: Data -> Markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from gog import wording
from gog_console import formatting
from gog_console.report import bars, charts, summary
from gog_console.report.markup import Child, Markup, tag
from gog_console.report.model import Data, Evaluation, Row, column, number, policy_order

STATES = {"Complete": "good", "Failed": "bad", "Suspended": "still", "Not started": "still", "Unknown": "still"}


def header(data: Data) -> Markup:
    """Name, state, and identifying facts of the run."""
    facts = [
        ("Started", formatting.when(_began(data))),
        ("Wall time", formatting.duration(wall_seconds(data))),
        ("Model", str(_at(data.spec, "model", "base") or formatting.DASH)),
        ("Data", _data(data.spec)),
        ("Seed", str(data.spec.get("seed", 0)) if data.spec else formatting.DASH),
        ("Report written", formatting.when(data.now)),
    ]
    if data.spend.total().usd:
        facts.insert(2, ("Spent", formatting.spent(data.spend)))
    return tag(
        "header",
        tag("p", "Glance-or-Gaze run", class_="eyebrow"),
        tag("h1", data.name, " ", pill(data.condition)),
        tag("p", headline(data), class_="headline"),
        tag("p", formatting.unlinked(data.message), class_="failure")
        if data.condition == "Failed" and data.message
        else None,
        tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts], class_="facts"),
    )


def pill(condition: str) -> Markup:
    """A condition as a coloured label."""
    return tag("span", formatting.spaced(condition), class_=f"pill {STATES.get(condition, 'busy')}")


def headline(data: Data) -> str:
    """The result in one sentence; before the evaluation, the progress of the run."""
    evaluation = data.main("evaluate", data.evaluations)
    trained = _row(evaluation, "grpo")
    if evaluation is None or trained is None:
        return _progress(data)
    where = f"{formatting.count(number(trained.get('n')))} held-out questions"
    result = f"The trained policy answers {formatting.percent(number(trained.get('accuracy')))} of {where} correctly"
    versus = comparison(evaluation, "grpo", "sft")
    before = _row(evaluation, "sft")
    if versus is None or before is None:
        return f"{result}."
    difference, ends = versus
    return (
        f"{result}; before reinforcement learning it was {formatting.percent(number(before.get('accuracy')))} "
        f"(paired difference {formatting.points(difference)} points, 95{formatting.THIN}% interval {formatting.interval(ends)})."
    )


def strip(data: Data) -> Markup:
    """Main results: reward, accuracy, tools."""
    return tag("section", _reward(data), _accuracy(data), _tools(data), class_="strip", id="result")


def problems(data: Data) -> Markup | None:
    """Data that could not be read; at the top, because it affects everything below."""
    if not data.problems:
        return None
    return tag(
        "section",
        tag("h2", wording.plural(len(data.problems), "piece"), " could not be read"),
        tag("p", "The report shows the remaining data. Nothing was estimated in their place."),
        tag(
            "ul", [tag("li", tag("code", item.where), " – ", formatting.unlinked(item.what)) for item in data.problems]
        ),
        class_="problems",
        id="problems",
    )


def comparison(evaluation: Evaluation, a: str, b: str) -> tuple[float, tuple[float, float]] | None:
    """(a − b, its interval) on the first benchmark, in whichever order the pair was compared; None without one."""
    for row in evaluation.comparisons:
        difference, ends = number(row.get("difference")), summary.interval(row.get("ci95"))
        if difference is None or ends is None:
            continue
        if (row["a"], row["b"]) == (a, b):
            return difference, ends
        if (row["a"], row["b"]) == (b, a):
            return -difference, (-ends[1], -ends[0])
    return None


def wall_seconds(data: Data) -> float | None:
    """Seconds from the start to the end of the run, or until now; None before its start."""
    began = _began(data)
    ends = [stage.completed for stage in data.stages if stage.completed]
    end = data.completed or (data.now if any(stage.running for stage in data.stages) else max(ends, default=None))
    return max(0.0, (end - began).total_seconds()) if began and end else None


def _began(data: Data) -> datetime | None:
    return min((stage.started for stage in data.stages if stage.started), default=data.created)


def _progress(data: Data) -> str:
    active = next((stage for stage in data.stages if stage.running), None)
    done = [stage for stage in data.stages if stage.condition == "Complete" and not stage.arm]
    if data.condition == "Failed":
        broken = next((stage for stage in data.stages if stage.condition == "Failed"), None)
        return f"The run failed{f' in stage {broken.key}' if broken else ''}; checkpoints committed before it are shown below."
    if active:
        steps = f", step {active.step:,} of {active.total:,}" if active.step is not None and active.total else ""
        return f"The run is in stage {active.key}{steps}. The page shows what is committed so far."
    if not data.stages:
        return "This run has no objects and its store is empty."
    return f"{wording.plural(len(done), 'stage')} complete; the trained policy is not evaluated yet."


def _reward(data: Data) -> Markup:
    rows = data.main("grpo", data.curves) or ()
    first, last, size = summary.ends(rows, "reward_mean")
    if first is None or last is None:
        return _card("Reward", nothing(data, "grpo"))
    values = column(rows, "reward_mean")
    gained = tag(
        "span", f"{last - first:+z.3f}".replace("-", "−"), class_="delta good" if last > first else "delta bad"
    )
    return _card(
        "Reward during GRPO",
        tag("p", f"{first:.3f}", tag("span", " → ", class_="to"), f"{last:.3f} ", gained, class_="big"),
        _spark(values, size),
        tag("p", f"Means of the first and the last {wording.plural(size, 'step')} of {len(rows)}.", class_="note"),
    )


def _accuracy(data: Data) -> Markup:
    evaluation = data.main("evaluate", data.evaluations)
    if evaluation is None or not evaluation.rows:
        return _card("Accuracy on held-out questions", nothing(data, "evaluate"))
    benchmark = evaluation.rows[0].get("benchmark")
    rows = [row for row in evaluation.rows if row.get("benchmark") == benchmark]
    n = formatting.count(number(rows[0].get("n")))
    return _card(
        "Accuracy on held-out questions",
        bars.whiskers(accuracy_bars(rows)),
        tag(
            "p",
            f"{n} questions, {benchmark or 'one benchmark'}; whiskers are 95{formatting.THIN}% intervals.",
            class_="note",
        ),
    )


def accuracy_bars(rows: Sequence[Row]) -> list[bars.Bar]:
    """Rows of one benchmark as bars, baselines first."""
    return [
        bars.Bar(
            formatting.policy(row["policy"]),
            number(row.get("accuracy")),
            summary.interval(row.get("ci95")),
            strong=row["policy"] == "grpo",
        )
        for row in sorted(rows, key=lambda row: policy_order(str(row["policy"])))
    ]


def _tools(data: Data) -> Markup:
    """Tool failures during GRPO, and the share of trajectories excluded because of them."""
    rows = data.main("grpo", data.curves) or ()
    if not rows:
        return _card("Tool failures", nothing(data, "grpo"))
    counted = any(value is not None for value in column(rows, "attempts"))
    attempts = _mean(rows, "attempt_failure_ratio", weight="attempts" if counted else "")
    calls = _mean(rows, "tool_failure_ratio")
    played = sum(value for value in column(rows, "trajectories") if value is not None)
    excluded = sum(value for value in column(rows, "excluded") if value is not None)
    lines = [
        (formatting.percent(attempts), "of attempts failed" if counted else "of attempts failed, mean over steps"),
        (formatting.percent(calls, 2), "of calls failed after all retries"),
        (formatting.percent(excluded / played if played else None, 2), "of trajectories excluded from the loss"),
    ]
    return _card(
        "Tools during GRPO",
        tag("ul", [tag("li", tag("b", value), " ", text) for value, text in lines], class_="figures"),
        tag(
            "p",
            f"{formatting.count(excluded)} of {formatting.count(played)} trajectories were excluded.",
            class_="note",
        ),
    )


def _card(title: str, *children: Child) -> Markup:
    return tag("div", tag("h3", title), children, class_="card")


def nothing(data: Data, key: str) -> Markup:
    """Why a section has no content."""
    stage = data.stage(key)
    broken = [problem for problem in data.problems if problem.stage == key]
    if broken:
        return tag("p", "Could not be read: ", tag("code", broken[0].where), class_="nothing broken")
    if stage is None:
        return tag("p", "This run has no such stage.", class_="nothing")
    states = {"Complete": "committed nothing to show", "Not started": "has not started"}
    return tag(
        "p",
        f"{formatting.stage(stage.kind)} {states.get(stage.condition, 'has not committed anything yet')}.",
        class_="nothing",
    )


def _spark(values: Sequence[float | None], ends: int) -> Markup:
    """Course of the reward, without axes; the steps of the two means are shaded."""
    smooth = charts.moving_mean(values, charts.window(len(values)))
    known = [value for value in smooth if value is not None]
    low, high = min(known), max(known)
    step = 400 / max(1, len(smooth) - 1)
    places = [
        (place * step, 94 - 84 * (value - low) / ((high - low) or 1))
        for place, value in enumerate(smooth)
        if value is not None
    ]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    wide = max(ends - 1, 1) * step
    shades = [tag("rect", x=x, y=0, width=wide, height=100) for x in (0, 400 - wide)]
    return tag(
        "svg", shades, tag("path", d=path, class_="curve c1"), viewBox="0 0 400 100", class_="spark", aria_hidden="true"
    )


def _row(evaluation: Evaluation | None, policy: str) -> Row | None:
    return next((row for row in evaluation.rows if row["policy"] == policy), None) if evaluation else None


def _mean(rows: Sequence[Row], name: str, *, weight: str = "") -> float | None:
    """Mean over steps, weighted by another column if one is named."""
    weights = column(rows, weight) if weight else [1.0] * len(rows)
    pairs = [(value, size or 0.0) for value, size in zip(column(rows, name), weights) if value is not None]
    total = sum(size for _, size in pairs)
    return sum(value * size for value, size in pairs) / total if total else None


def _data(spec: Mapping[str, Any]) -> str:
    kept = spec.get("data")
    if not isinstance(kept, Mapping):
        return formatting.DASH
    if kept.get("world") is not None:
        return "embedded world"
    return str(kept.get("path") or kept.get("uri") or formatting.DASH)


def _at(source: object, *path: str) -> Any:
    for name in path:
        source = source.get(name) if isinstance(source, Mapping) else None
    return source
