"""Caveats that a reader needs before quoting a number from the report. Pure: Data -> Markup.

They are derived from the data: injected failures, an imperfect teacher, excluded trajectories, a single seed. A table
shows which settings come from the paper and which are assumptions, with the values of this run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gog import catalog
from gog_console import formatting
from gog_console.report import provenance
from gog_console.report.markup import Markup, tag
from gog_console.report.model import Data, Row, column, number

BADGES = {"paper": "paper", "brief": "paper, reported", "peer": "peer's code", "ours": "assumption"}


def notes(data: Data) -> Markup:
    """The notes and the table of settings."""
    items = [tag("li", tag("b", title), " ", text) for title, text in _notes(data)]
    return tag(
        "section",
        tag("h2", "Read this before quoting a number"),
        tag("ul", items, class_="notes"),
        tag(
            "details",
            tag("summary", "Settings from the paper and assumptions"),
            tag("p", _LEGEND, class_="note"),
            tag("div", _settings(data), class_="scroll"),
        ),
        id="notes",
    )


_LEGEND = (
    "Marks: paper = stated by the authors; paper, reported = second hand; peer's code = DeepMMSearch-R1 or MMSearch-R1, whose "
    "recipe the paper's matches; assumption = chosen by this project. Values that differ from the paper's are flagged."
)


def injected(data: Data) -> list[tuple[str, float, str]]:
    """(tool, rate, kinds) of every failure that was injected on purpose."""
    stated = _mapping(data.spec.get("endpoints"))
    found: dict[str, tuple[str, float, str]] = {}
    for tool in catalog.TOOLS:
        _add(found, tool.name, _mapping(stated.get(tool.name) or stated.get(tool.field)))
    for endpoint in data.endpoints:
        _add(found, str(endpoint.get("role") or endpoint.get("name")), endpoint)
    return list(found.values())


def _add(found: dict[str, tuple[str, float, str]], name: str, endpoint: Row) -> None:
    failures = _mapping(endpoint.get("failures"))
    rate = number(failures.get("rate")) or 0.0
    shown = catalog.SERVER_BY_NAME[name].title if name in catalog.SERVER_BY_NAME else name
    if rate > 0:
        kinds = failures.get("kinds") or ("timeout", "429", "5xx", "malformed", "empty")
        found[shown] = (shown, rate, ", ".join(map(str, kinds)))


def _notes(data: Data) -> Iterator[tuple[str, str]]:
    yield from _failures(data)
    teacher_accuracy = _teacher_accuracy(data)
    if teacher_accuracy is not None and teacher_accuracy < 1:
        yield (
            "The teacher makes mistakes on purpose.",
            f"Only {formatting.percent(teacher_accuracy, 0)} of its demonstrations are free of mistakes, so that reinforcement "
            "learning has something to improve. The gain of GRPO over SFT shows that the parts work together; it does not "
            "predict the gain of a real model.",
        )
    if _mapping(data.spec.get("data")).get("world") is not None:
        yield (
            "The world is embedded.",
            "Images, questions and tools are generated and small; the tools see pixels and text only, never the scene "
            "that drew them. Accuracies are not comparable with published benchmarks.",
        )
    if data.evaluations:
        yield (
            "One seed.",
            "Intervals cover the choice of questions, not the randomness of training: another seed gives another policy.",
        )
    yield from _exclusions(data)
    yield from _unlearned(data.main("grpo", data.curves) or ())
    if provenance.value(data, "grpo", "gaze") in ("direct", "off", False):
        yield (
            "Gaze was not on.",
            f"This run used gaze: {provenance.value(data, 'grpo', 'gaze')}, which is a comparison and not the method.",
        )
    if data.recorded > len(data.samples):
        yield (
            "The trajectories below are a selection, not a random sample.",
            f"{len(data.samples)} of {data.recorded:,} recorded trajectories, selected to show every kind of outcome. All "
            "shares are computed over all trajectories.",
        )


def _failures(data: Data) -> Iterator[tuple[str, str]]:
    found = injected(data)
    if found:
        alike: dict[tuple[float, str], list[str]] = {}
        for name, rate, kinds in found:
            alike.setdefault((rate, kinds), []).append(name)
        each = "; ".join(
            f"{formatting.percent(rate, 0)} of the requests to {formatting.listed(names)} ({kinds})"
            for (rate, kinds), names in alike.items()
        )
        yield (
            "Failures were injected:",
            f"{each}. They test that the run survives failures; do not quote them as the failure rate of a tool.",
        )
    elif data.spec:
        yield "No failures were injected.", "Every failure shown is real."


def _exclusions(data: Data) -> Iterator[tuple[str, str]]:
    rows = data.main("grpo", data.curves) or ()
    played = sum(value or 0 for value in column(rows, "trajectories"))
    excluded = sum(value or 0 for value in column(rows, "excluded"))
    how = provenance.value(data, "grpo", "tool_failures") or "exclude"
    if played and how in ("exclude", "drop"):
        yield (
            "Trajectories with failures were excluded.",
            f"{formatting.count(excluded)} of {formatting.count(played)} in GRPO had a tool or judge failure and entered "
            f"neither the loss nor their group's statistics (toolFailures: {how}). Reward and accuracy curves cover the others.",
        )
    elif played:
        yield (
            "Tool failures entered the loss.",
            f"This run set toolFailures: {how}, so what it learned includes effects of the infrastructure.",
        )


def _unlearned(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    unlearned = sum(value == 0 for value in column(rows, "learned"))
    if unlearned == len(rows) > 0:
        yield (
            "GRPO learned nothing.",
            "In every step the rewards of each group were equal, so the weights did not change: the policy after GRPO is the "
            "SFT policy. A policy that never succeeds, or always does, gives no signal: see the levels.",
        )
    elif unlearned:
        yield (
            "Some steps learned nothing.",
            f"In {unlearned} of {len(rows)} GRPO steps the rewards of each group were equal, so the weights did not change.",
        )


def _teacher_accuracy(data: Data) -> float | None:
    """From the curate checkpoint, else from the settings."""
    stage = data.stage("curate")
    noted = number(stage.meta.get("teacher_accuracy")) if stage else None
    return noted if noted is not None else number(provenance.value(data, "curate", "teacher_accuracy"))


def _settings(data: Data) -> Markup:
    head = tag("tr", [tag("th", name) for name in ("Setting", "This run", "From", "Mark")])
    body = [
        tag(
            "tr",
            tag("td", tag("code", f"{item.group}.{item.name}")),
            tag("td", item.value if item.known else tag("span", f"{item.value} or the preset's", class_="muted")),
            tag("td", tag("span", BADGES[item.source], class_=f"badge {item.source}")),
            tag(
                "td",
                item.mark if ":" in item.mark else None,
                tag("span", " differs", class_="differs") if item.differs else None,
            ),
        )
        for item in provenance.settings(data)
    ]
    return tag("table", tag("thead", head), tag("tbody", body), class_="settings")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
