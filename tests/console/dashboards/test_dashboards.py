"""Dashboards as data and as files: Prometheus reads them, Grafana can lay them out, an image tells what they show."""

from __future__ import annotations

import doctest
import importlib
import itertools
import json
import re
import subprocess

import pytest
import yaml
from support import kube

from gog_console.dashboards import boards, drawing, grafana, palette, panels

SHIPPED = kube.ROOT / "charts/gog/dashboards"
PANELS = [(board, panel) for board in boards.ALL for panel in board.panels()]
NAMES = [f"{board.name}: {panel.title}" for board, panel in PANELS]


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=NAMES)
def test_a_series_name_uses_labels_that_its_expression_keeps(board, panel):
    for query in panel.queries:
        kept = set().union(*(re.split(r",\s*", each) for each in re.findall(r"\bby \(([^)]*)\)", query.expr)))
        assert set(re.findall(r"{{(\w+)}}", query.legend)) <= kept, query


@pytest.mark.parametrize("board", boards.ALL, ids=lambda board: board.name)
def test_a_dashboard_has_the_variables_that_its_expressions_use(board):
    used = {name for panel in board.panels() for query in panel.queries for name in re.findall(r"\$(\w+)", query.expr)}
    assert used - {"__rate_interval", "__range"} == set(board.variables)


def test_prometheus_can_read_every_expression(tmp_path):
    checked = [
        {"record": f"panel:n{i}", "expr": panels.expanded(query.expr)}
        for i, query in enumerate(query for _, panel in PANELS for query in panel.queries)
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": checked}]}))
    command = [kube.program("promtool"), "check", "rules", "--lint=none", tmp_path / "rules.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_chart_ships_what_the_generator_writes():
    assert {path.name: path.read_text() for path in SHIPPED.glob("*")} == boards.files(), "run: make dashboards"


@pytest.mark.parametrize("board", boards.ALL, ids=lambda board: board.name)
def test_panels_neither_overlap_nor_leave_the_grid(board):
    taken = set()
    for panel in grafana.dashboard(board)["panels"]:
        place = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


@pytest.mark.parametrize("board", boards.ALL, ids=lambda board: board.name)
def test_panels_have_unique_titles_and_ids(board):
    made = json.loads(boards.files()[f"gog-{board.name}.json"])["panels"]
    assert len({panel["id"] for panel in made}) == len(made)
    shown = [panel["title"] for panel in made if panel["type"] in ("timeseries", "bargauge", "state-timeline")]
    assert len(set(shown)) == len(shown) and all(shown)


def test_all_means_series_without_the_label_too():
    (run,) = [each for each in grafana.dashboard(boards.ALL[0])["templating"]["list"] if each["name"] == "run"]
    assert run["allValue"] == ".*" and run["includeAll"]
    assert 'run=~".*"' in panels.expanded(f"gog_train_kl{{{panels.WHERE}}}")


def test_a_label_value_always_has_the_same_colour():
    assert palette.colour("p95 judge http", palette.TOOLS) == palette.GOLD
    assert palette.colour("judgement", palette.TOOLS, 1) == palette.CYCLE[1]


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0512, "share", "5.12 %"),
        (0.0, "seconds", "0"),
        (0.0301, "seconds", "30.1 ms"),
        (4100.0, "seconds", "1 h 8 min"),
        (3600.0, "seconds", "1 h"),
        (2.1e9, "bytes_per_second", "2.1 GB/s"),
        (154.4, "count", "154"),
        (1e6, "count", "1 M"),
        (9.5, "dollars", "$9.50"),
        (float("nan"), "share", "–"),
    ],
)
def test_values_have_readable_units(value, unit, words):
    assert drawing.said(value, unit) == words


def test_missing_values_are_gaps():
    times, values = drawing.broken(((0, 1.0), (10, 1.0), (40, 2.0)))
    assert times == [0, 10, 20, 40] and values[2] != values[2]


@pytest.mark.parametrize("module", ["drawing", "palette", "panels", "promql"])
def test_docstring_examples_hold(module):
    assert doctest.testmod(importlib.import_module(f"gog_console.dashboards.{module}")).failed == 0
