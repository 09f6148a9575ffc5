"""Training sections of the page. Pure: Data -> sections and the charts that they contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gog import profiles, step_metrics
from gog_console.report import charts, lengths, overview
from gog_console.report.charts import Chart, Line
from gog_console.report.markup import Child, Markup, tag
from gog_console.report.model import Data, Row, column, number

BEHAVIOURS = (("none", "no search", "b0"), ("single", "one kind", "b1"), ("mixed", "several kinds", "b2"))
"""Behaviour classes: key, label, style."""
MOST_TRACES = 32
FEW_ATTEMPTS = 10
"""Steps with fewer attempts (the others were cached) have no meaningful failure ratio, which is left out."""


def sft(data: Data) -> tuple[Markup, list[Chart]]:
    """Loss and speed of supervised fine-tuning."""
    rows = data.main("sft", data.curves) or ()
    shown = sft_charts(rows)
    body: Child = [charts.draw(chart) for chart in shown] or overview.nothing(data, "sft")
    grid = tag("div", body, class_="grid")
    return tag("section", tag("h2", "Supervised fine-tuning"), grid, _traces(data, "sft"), id="sft"), shown


def sft_charts(rows: Sequence[Row]) -> list[Chart]:
    """Charts of supervised fine-tuning."""
    return [*_step_charts("sft", rows, prefix="sft-", group="sft"), *time_charts("sft", rows)]


def grpo(data: Data) -> tuple[Markup, list[Chart]]:
    """Reward and its components, tools, behaviour; optimiser metrics in a collapsed part."""
    rows = data.main("grpo", data.curves) or ()
    shown, folded = grpo_charts(rows), optimisation_charts(rows)
    title = tag("h2", "Reinforcement learning (GRPO)")
    if not rows:
        return tag("section", title, overview.nothing(data, "grpo"), id="grpo"), []
    smooth = len(rows) >= charts.SMOOTH_FROM
    how = f"Thin: each step. Bold: mean of {charts.window(len(rows))} steps. " if smooth else ""
    return tag(
        "section",
        title,
        tag("p", f"{how}Point at a chart to show one step in all of them.", class_="lead"),
        tag("div", [charts.draw(chart) for chart in shown], class_="grid"),
        tag("details", tag("summary", "Optimisation and cost"), tag("div", map(charts.draw, folded), class_="grid")),
        lengths.table(rows),
        _traces(data, "grpo"),
        id="grpo",
    ), [*shown, *folded]


def _traces(data: Data, kind: str) -> Markup | None:
    """Names of the traces of the main line's stage, which are files of the store: a page without links opens none."""
    names = data.main(kind, data.profiles) or ()
    if not names:
        return None
    stage = next(stage.key for stage in data.stages if stage.kind == kind and not stage.arm)
    shown = [[tag("code", name), " "] for name in names[:MOST_TRACES]]
    more = f"and {len(names) - MOST_TRACES} more " if len(names) > MOST_TRACES else ""
    return tag(
        "p", f"Traces for ui.perfetto.dev, in {profiles.FOLDER}/{stage}/ of the store: ", shown, more, class_="note"
    )


def grpo_charts(rows: Sequence[Row]) -> list[Chart]:
    """The main charts; those without values are left out."""
    means, deviations = column(rows, "reward_mean"), column(rows, "reward_std")
    band = [None if m is None or d is None else (m - d, m + d) for m, d in zip(means, deviations)]
    deviation = "band: ± 1 standard deviation over trajectories"
    tries = "attempts: requests that reached a server (cached answers need none); calls: failed after all retries"

    def chart(name: str, title: str, lines: Sequence[Line], note: str = "", **how: Any) -> Chart:
        return Chart(name, title, steps_of(rows), lines, note, **{"limits": (0.0, 1.0), **how})

    found = [
        chart("reward", "Reward", [Line("mean", means, "c1", band)], deviation, share=False),
        chart("accuracy", "Accuracy", [Line("of judged trajectories", column(rows, "accuracy_mean"))]),
        chart("format", "Format", [Line("well formed", column(rows, "format_mean"))]),
        chart("failures", "Tool failures", _failure_lines(rows), tries, limits=None),
        chart("behaviour", "Behaviour", behaviour_lines(rows), "how a trajectory searched"),
        chart("choice", "Right candidate chosen", [Line("first choice of several", column(rows, "choice_accuracy"))]),
    ]
    return [*filter(_has_values, found), *time_charts("grpo", rows), *filter(_has_values, _pace(rows))]


def time_charts(kind: str, rows: Sequence[Row]) -> list[Chart]:
    """Where the time of a step goes: one chart, none for logs without parts."""
    lines = [
        Line(part.title, column(rows, f"seconds_{part.name}"), f"part-{part.name}")
        for part in step_metrics.PARTS
        if kind in part.stages and _known(rows, f"seconds_{part.name}")
    ]
    note = "seconds; at each moment one part, so what is hidden behind other work is not shown"
    if not lines:
        return []
    return [
        Chart(
            f"time-{kind}",
            "Where a step's time goes",
            steps_of(rows),
            lines,
            note,
            share=False,
            group=kind,
            stacked=True,
        )
    ]


def _pace(rows: Sequence[Row]) -> list[Chart]:
    """What waits in a step, and how fast it is."""
    steps = steps_of(rows)
    idle = [Line("trainer", column(rows, "trainer_idle"), "c1"), Line("engine", column(rows, "engine_idle"), "c4")]
    speed = [
        Line("generated", column(rows, "generated_tokens_per_second"), "c1"),
        Line("trained", column(rows, "tokens_per_second"), "c3"),
    ]
    return [
        Chart("idle", "Idle share of a step", steps, idle, "trainer: it waited; engine: no episode could proceed"),
        Chart("speed", "Tokens per second", steps, speed, "while questions are played; during updates", share=False),
    ]


def optimisation_charts(rows: Sequence[Row]) -> list[Chart]:
    """Charts of the optimiser and of the cost per step."""
    steps = steps_of(rows)
    memory = [
        Line("device", _gigabytes(rows, "device_memory_peak_bytes"), "c1"),
        Line("host", _gigabytes(rows, "host_memory_peak_bytes"), "c2"),
    ]
    busy = [Line("mean", _busy(rows, "seconds_"), "c1"), Line("slowest rank", _busy(rows, "slowest_"), "c5")]
    more = [
        Chart("memory", "Peak memory", steps, memory, "GB; of the largest rank", share=False),
    ]
    if any(value is not None for value in busy[1].values):
        more.append(
            Chart("ranks", "Busy time of ranks", steps, busy, "seconds per step; apart: a straggler", share=False)
        )
    return [*_step_charts("grpo", rows), *filter(_has_values, more)]


def _gigabytes(rows: Sequence[Row], name: str) -> list[float | None]:
    return [None if value is None else value / 1e9 for value in column(rows, name)]


def _busy(rows: Sequence[Row], prefix: str) -> list[float | None]:
    """Seconds of each step in which a rank was not idle; None where its parts are unknown."""
    names = [f"{prefix}{part.name}" for part in step_metrics.PARTS if part.name != "idle"]
    found = ([value for name in names if (value := number(row.get(name))) is not None] for row in rows)
    return [sum(each) if each else None for each in found]


def _has_values(chart: Chart) -> bool:
    return any(value is not None for line in chart.lines for value in line.values)


def _step_charts(kind: str, rows: Sequence[Row], *, prefix: str = "", group: str = "grpo") -> list[Chart]:
    """One chart per metric that the rows list for this stage; those without values are left out."""
    return [
        Chart(
            f"{prefix}{metric.key}",
            metric.title,
            steps_of(rows),
            [Line("", column(rows, metric.key))],
            metric.note,
            share=metric.unit == "share",
            holds=(0.0,) if metric.zero_based else (),
            smooth=metric.smooth,
            group=group,
        )
        for metric in step_metrics.of_stage(kind)
        if kind in metric.chart_of and metric.is_shown(column(rows, metric.key))
    ]


def behaviour_lines(rows: Sequence[Row]) -> list[Line]:
    """Share of each behaviour class per step."""
    kept = [row.get("behaviour") for row in rows]
    shares = [each if isinstance(each, Mapping) else {} for each in kept]
    return [Line(name, [number(each.get(key)) for each in shares], style) for key, name, style in BEHAVIOURS]


def arms(data: Data) -> tuple[Markup | None, list[Chart]]:
    """Each arm against the main line, over the same steps."""
    curves = data.by_arm("grpo", data.curves)
    if len(curves) < 2:
        return None, []
    steps = sorted({step for rows in curves.values() for step in steps_of(rows)})
    shown = []
    for name, title in (("reward_mean", "Reward"), ("accuracy_mean", "Accuracy")):
        lines = [_arm_line(arm, rows, name, steps, place) for place, (arm, rows) in enumerate(curves.items())]
        share = name != "reward_mean"
        shown.append(Chart(f"arms-{name}", title, steps, lines, group="arms", limits=(0.0, 1.0), share=share))
    text = "Variants of the later stages; they share the earlier ones with the main line."
    grid = tag("div", map(charts.draw, shown), class_="grid")
    return tag("section", tag("h2", "Arms"), tag("p", text, class_="lead"), grid, id="arms"), shown


def steps_of(rows: Sequence[Row]) -> list[int]:
    """Step numbers of log rows."""
    return [int(row["step"]) for row in rows]


def _arm_line(arm: str, rows: Sequence[Row], name: str, steps: Sequence[int], place: int) -> Line:
    by_step = dict(zip(steps_of(rows), column(rows, name)))
    return Line(arm or "main line", [by_step.get(step) for step in steps], f"c{1 + place % 6}")


def _failure_lines(rows: Sequence[Row]) -> list[Line]:
    excluded = [
        None if left_out is None or not played else left_out / played
        for left_out, played in zip(column(rows, "excluded"), column(rows, "trajectories"))
    ]
    attempts = [
        None if made is not None and made < FEW_ATTEMPTS else value
        for value, made in zip(column(rows, "attempt_failure_ratio"), column(rows, "attempts"))
    ]
    return [
        Line("attempts", attempts, "c4"),
        Line("calls", column(rows, "tool_failure_ratio"), "c5"),
        Line("excluded", excluded, "c6"),
    ]


def _known(rows: Sequence[Row], name: str) -> bool:
    return any(value is not None for value in column(rows, name))
