"""Which rows are compared with which, and what the comparison shows. Pure.

Runs whose manifests differ in nothing but the seed are seeds of one setting. Within a setting the trained policy is
compared with every other row; across settings each row with the same row of the first setting. Both policies of a pair
answer the same questions: those for which both have a verdict, seed by seed. All p-values of one invocation are corrected
together (Holm), because a reader looks at all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gog import significance, stats
from gog.significance import Difference, Spread
from gog_console import figures
from gog_console.compare import answers
from gog_console.compare.answers import Key, Run
from gog_console.report.model import Row

TRAINED = ("grpo", "sft")
"""Policies with which the others of a setting are compared: the first of these that it has."""


@dataclass(frozen=True)
class Setting:
    """Runs of one manifest."""

    name: str
    """Name of its first run, with the number of further ones."""
    runs: tuple[Run, ...]
    """Its seeds, ascending."""


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    setting: str
    """Name of the setting."""
    policy: str
    """Policy, with its arm."""
    benchmark: str
    """Benchmark."""
    n: int
    """Questions with a verdict, of all seeds."""
    accuracy: Spread
    """Accuracy over seeds."""
    ci95: tuple[float, float]
    """95 % interval: over seeds, or over the questions of one seed (Wilson)."""
    passed: Mapping[str, float]
    """pass@k by k, mean over seeds; of runs that answer each question several times."""
    calls: float | None
    """Tool calls per question, mean over seeds."""
    seconds: float | None
    """Median duration of an episode, mean over seeds."""
    row: Row
    """Figures beside the score (gog_console.figures), means over seeds, where a row of results has them."""


@dataclass(frozen=True)
class Mean:
    """Accuracy of a policy over several benchmarks."""

    setting: str
    """Name of the setting."""
    policy: str
    """Policy, with its arm."""
    benchmarks: int
    """Number of them."""
    macro: float
    """Mean of the benchmarks."""
    micro: float
    """Mean of the questions."""


@dataclass(frozen=True)
class Comparison:
    """The difference of two rows."""

    a: str
    """Row whose accuracy counts positive."""
    b: str
    """Row that it is compared with."""
    benchmark: str
    """Benchmark."""
    found: Difference
    """The difference."""
    corrected: float
    """P-value, corrected for all comparisons of the invocation."""


def settings(runs: Sequence[Run]) -> list[Setting]:
    """Groups runs by their manifests, in the order in which they were given."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.settings, []).append(run)
    return [_setting(group) for group in groups.values()]


def _setting(group: Sequence[Run]) -> Setting:
    more = f" (+ {len(group) - 1} seed{'s' if len(group) > 2 else ''})" if len(group) > 1 else ""
    return Setting(group[0].name + more, tuple(sorted(group, key=lambda run: run.seed)))


def lines(found: Sequence[Setting]) -> list[Line]:
    """The table: one line for each row that every seed of a setting has."""
    return [_line(setting, key) for setting in found for key in _keys(setting)]


def _keys(setting: Setting) -> list[Key]:
    first, *others = setting.runs
    return [key for key in first.accuracy if all(key in run.accuracy for run in others)]


def _line(setting: Setting, key: Key) -> Line:
    verdicts = [list(run.accuracy[key].values()) for run in setting.runs]
    spread = significance.spread([stats.mean(values) for values in verdicts])
    ends = (spread.low, spread.high)
    if spread.n == 1 and set(verdicts[0]) <= {0.0, 1.0}:
        ends = stats.wilson(round(sum(verdicts[0])), len(verdicts[0]))
    elif spread.n == 1:  # several answers to a question
        ends = stats.paired_bootstrap(verdicts[0], [0.0] * len(verdicts[0]))[1:]
    return Line(
        setting.name,
        *key,
        n=sum(map(len, verdicts)),
        accuracy=spread,
        ci95=(max(0.0, ends[0]), min(1.0, ends[1])),
        passed=_passed(setting, key),
        calls=_mean(setting, key, "tool_calls_mean"),
        seconds=_mean(setting, key, "latency_p50_s"),
        row=_row(setting, key),
    )


def _mean(setting: Setting, key: Key, *path: str) -> float | None:
    """Mean over seeds of a figure that all of them have."""
    values = [figures.value(run.rows.get(key, {}), path) for run in setting.runs]
    known = [value for value in values if value is not None]
    return stats.mean(known) if len(known) == len(values) else None


def _row(setting: Setting, key: Key) -> Row:
    made: dict[str, Any] = {"policy": key[0]}
    for each in figures.FIGURES:
        *parents, last = each.path
        place = made
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = _mean(setting, key, *each.path)
    return made


def means(table: Sequence[Line]) -> list[Mean]:
    """Means over benchmarks of the policies that have a line for all of them; none for a single benchmark."""
    benchmarks = {line.benchmark for line in table}
    found = []
    for setting, policy in dict.fromkeys((line.setting, line.policy) for line in table):
        own = [line for line in table if (line.setting, line.policy) == (setting, policy)]
        if len(own) == len(benchmarks) > 1:
            scores = [line.accuracy.mean for line in own]
            micro = stats.weighted_mean(scores, [line.n for line in own])
            found.append(Mean(setting, policy, len(own), stats.mean(scores), micro))
    return found


def _passed(setting: Setting, key: Key) -> dict[str, float]:
    found = [run.rows.get(key, {}).get("pass_at") or {} for run in setting.runs]
    common = [k for k in found[0] if k != "1" and all(k in each for each in found)]
    return {k: stats.mean([float(each[k]) for each in found]) for k in common}


def comparisons(found: Sequence[Setting], *, resamples: int = 10_000) -> list[Comparison]:
    """Every comparison, with p-values corrected together. Pairs without a common question are left out."""
    several = len(found) > 1
    made = []
    for (setting, a), (other, b) in _pairs(found):
        differences = _differences(setting, a, other, b)
        if differences:
            names = [f"{one.name}: {key[0]}" if several else key[0] for one, key in ((setting, a), (other, b))]
            made.append(
                Comparison(names[0], names[1], a[1], significance.compare(differences, resamples=resamples), 1.0)
            )
    corrected = significance.holm([each.found.p for each in made])
    return [replace(each, corrected=value) for each, value in zip(made, corrected, strict=True)]


Side = tuple[Setting, Key]


def _pairs(found: Sequence[Setting]) -> Iterator[tuple[Side, Side]]:
    for setting in found:
        keys = _keys(setting)
        for benchmark in dict.fromkeys(key[1] for key in keys):
            trained = next(((name, benchmark) for name in TRAINED if (name, benchmark) in keys), None)
            others = [key for key in keys if key[1] == benchmark and key != trained]
            yield from (((setting, trained), (setting, key)) for key in others if trained is not None)
    for setting in found[1:]:
        same = set(_keys(found[0]))
        yield from (((setting, key), (found[0], key)) for key in _keys(setting) if key in same)


def _differences(setting: Setting, a: Key, other: Setting, b: Key) -> list[list[float]]:
    """a - b for each common question of each seed; runs are paired by their seeds, else in order.

    Returns:
        The seeds that have common questions, each with all questions of any seed in one order; nan for one that it lacks.
    """
    theirs: Mapping[int, Run] = {run.seed: run for run in other.runs}
    if {run.seed for run in setting.runs} <= theirs.keys():
        pairs = [(run, theirs[run.seed]) for run in setting.runs]
    else:
        pairs = list(zip(setting.runs, other.runs, strict=False))
    found = []
    for one, another in pairs:
        left, right = one.accuracy[a], another.accuracy[b]
        if answers.same_questions(one, a, another, b):
            found.append({name: value - right[name] for name, value in left.items() if name in right})
    found = [each for each in found if each]
    every = list(dict.fromkeys(name for each in found for name in each))
    return [[each.get(name, math.nan) for name in every] for each in found]
