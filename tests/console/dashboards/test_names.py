"""What dashboards and rules ask for is what the code registers: names, labels, and values of labels."""

from __future__ import annotations

import re

import pytest
from support import recorded_run

from gog import metrics
from gog_console.dashboards import boards, rules

REGISTERED = {series: each for each in metrics.DEFINITIONS for series in each.series}
TARGET = {"namespace", "run", "pod", "instance", "job"}
"""Labels that the scrape adds."""
RULES = (*rules.RECORDED, *rules.ALERTS)
EXPRESSIONS = sorted(
    {query.expr for board in boards.ALL for panel in board.panels() for query in panel.queries}
    | {rule.expr for rule in RULES}
)


def metric_names(expr: str) -> set[str]:
    """Of gog, without recorded ones."""
    return set(re.findall(r"(?<![\w:])gog_\w+", expr))


def selectors(expr: str) -> list[tuple[str, set[str]]]:
    """(metric, labels that are asked for) of each selector."""
    found = re.findall(r"(?<![\w:])(gog_\w+)\{([^}]*)\}", expr)
    return [(name, set(re.findall(r"(\w+)(?:=~|!~|!=|=)", labels))) for name, labels in found]


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_an_expression_names_only_metrics_and_labels_that_the_code_registers(expr):
    assert metric_names(expr) <= set(REGISTERED), metric_names(expr) - set(REGISTERED)
    for name, labels in selectors(expr):
        assert labels <= {*REGISTERED[name].labels, *TARGET}, name


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_label_values_in_expressions_are_emitted_by_the_code(expr):
    for name, inside in re.findall(r"(?<![\w:])(gog_\w+)\{([^}]*)\}", expr):
        for label, values in re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"$]+)"', inside):
            given = REGISTERED[name].labels.get(label, ())
            assert isinstance(given, str) or set(values.split("|")) <= set(given), (name, label)


def test_the_recorded_run_contains_only_registered_metrics():
    for kind, series in recorded_run.recorded().families.values():
        for name, labels in series:
            if name == "up":
                continue
            registered = REGISTERED[name]
            own = {key: value for key, value in labels if key not in {*TARGET, "le"}}
            assert registered.kind == kind and set(own) == set(registered.labels), name
            for key, value in own.items():
                assert isinstance(registered.labels[key], str) or value in registered.labels[key], (name, key, value)


def test_every_registered_metric_is_on_a_dashboard():
    shown = set().union(*(metric_names(expr) for expr in EXPRESSIONS))
    unseen = {each.name for each in metrics.DEFINITIONS if not set(each.series) & shown}
    assert unseen == {
        "gog_operator_working", "gog_operator_api_requests", "gog_operator_resync_duration_seconds", "gog_operator_objects",
        "gog_trace_spans",
    }  # fmt: skip
