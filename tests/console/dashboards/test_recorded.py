"""Every panel over a recorded run in a real Prometheus: none is empty, and a known failure rate is read back."""

from __future__ import annotations

import math

import pytest
from support import real_prometheus, recorded_run
from support.recorded_run import ATTEMPT_FAILURE, END, START

from gog import stats
from gog_console.dashboards import boards, images, panels, promql, tools_board

QUERIES = [(board, panel, query) for board in boards.ALL for panel in board.panels() for query in panel.queries]
NAMES = [f"{board.name}: {panel.title}: {query.legend}" for board, panel, query in QUERIES]
RANGE = f"{END - START}s"


@pytest.fixture(scope="module")
def recording():
    return recorded_run.recorded()


@pytest.fixture(scope="module")
def source(recording, tmp_path_factory):
    yield from served(recording, tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same, without labels of a cluster."""
    yield from served(recorded_run.recorded(on_cluster=False), tmp_path_factory.mktemp("local"))


def served(recording, folder):
    real_prometheus.blocks(recording.open_metrics(), folder)
    with real_prometheus.serving(folder) as prometheus:
        yield prometheus


def shown(source, panel, query, **choice):
    expr = panels.expanded(query.expr, range_=RANGE, **choice)
    return source.moment(expr, END) if panel.instant else source.curve(expr, START, END, 60)


def has_a_value(series) -> bool:
    return any(math.isfinite(value) for _, value in series.points)


@pytest.mark.parametrize(("board", "panel", "query"), QUERIES, ids=NAMES)
def test_a_panel_has_data(source, board, panel, query):
    assert any(map(has_a_value, shown(source, panel, query)))


@pytest.mark.parametrize(("board", "panel", "query"), QUERIES, ids=NAMES)
def test_a_panel_has_data_without_cluster_labels(local, board, panel, query):
    assert any(map(has_a_value, shown(local, panel, query)))


@pytest.mark.parametrize(("board", "panel", "query"), QUERIES, ids=NAMES)
def test_a_panel_shows_only_the_selected_run(source, board, panel, query):
    if "$run" in query.expr:
        assert any(map(has_a_value, shown(source, panel, query, run="world|other", namespace="team-a")))
        assert not shown(source, panel, query, run="other")
    if "$namespace" in query.expr:
        assert not shown(source, panel, query, namespace="other")


def test_no_panel_has_too_many_series(source):
    counts = {name: len(shown(source, panel, query)) for name, (_, panel, query) in zip(NAMES, QUERIES)}
    assert max(counts.values()) <= 10, {name: count for name, count in counts.items() if count > 10}


@pytest.mark.parametrize("tool", ["grounding", "textSearch", "judge"])  # image search has an outage
def test_the_injected_failure_rate_is_read_back_within_its_interval(source, recording, tool):
    n = recording.total("gog_tool_attempts_total", tool=tool)
    read = ratio(source, "gog_tool_attempts_total", tool)
    low, high = stats.wilson(round(read * n), round(n), z=3.0)
    assert low < ATTEMPT_FAILURE[tool] < high


def ratio(source, metric, tool):
    where = promql.joined(panels.WHERE, f'tool="{tool}"')
    expr = promql.share(metric, tools_board.BAD, where, "tool", window=RANGE)
    (series,) = source.moment(panels.expanded(expr), END)
    return series.points[0][1]


@pytest.mark.parametrize("tool", ATTEMPT_FAILURE)
def test_shares_survive_the_loss_of_a_pod(source, recording, tool):
    for metric in ("gog_tool_attempts_total", "gog_tool_calls_total"):
        bad = recording.total(metric, tool=tool) - recording.total(metric, tool=tool, outcome="ok")
        assert ratio(source, metric, tool) == pytest.approx(
            bad / recording.total(metric, tool=tool), rel=0.02, abs=2e-4
        )


def test_retries_hide_most_failures(source):
    attempts, calls = (
        ratio(source, metric, "textSearch") for metric in ("gog_tool_attempts_total", "gog_tool_calls_total")
    )
    assert calls < attempts / 20


def test_an_outage_is_visible_in_calls(source):
    (panel,) = [
        panel for panel in tools_board.BOARD.panels() if panel.title == "Calls that fail after all retries, by tool"
    ]
    (curve,) = [each for each in shown(source, panel, panel.queries[0]) if each.labels == {"tool": "imageSearch"}]
    begin, end = (START + 60 * minute for minute in recorded_run.OUTAGE)
    during = [value for time, value in curve.points if begin + 300 <= time <= end]
    apart = [value for time, value in curve.points if time < begin - 60 or time > end + 600]
    assert min(during) > 0.05 > 0.02 > max(apart)


def test_the_parts_of_a_share_add_up_to_it(source):
    by_kind, whole = (
        source.moment(panels.expanded(expr), END - 600)
        for expr in (
            f"sum({promql.share_by('gog_tool_attempts_total', tools_board.BAD, panels.WHERE, 'outcome')})",
            'sum(rate(gog_tool_attempts_total{outcome!="ok"}[5m])) / sum(rate(gog_tool_attempts_total[5m]))',
        )
    )
    assert by_kind[0].points[0][1] == pytest.approx(whole[0].points[0][1])


def test_a_tool_without_calls_has_no_failure_ratio(source):
    before = START + 60
    expr = panels.expanded(promql.share("gog_tool_calls_total", tools_board.BAD, panels.WHERE, "tool"))
    assert source.moment(expr, before) == []


def test_each_dashboard_can_be_drawn(source):
    pytest.importorskip("matplotlib", reason="images are drawn by matplotlib, which is not installed")
    drawn = images.of_all(source, START, END)
    assert set(drawn) == {"run.png", "tools.png", "training.png", "operator.png"}
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())


@pytest.mark.parametrize("seconds", [5, 30])
def test_images_have_the_resolution_of_the_scrapes(tmp_path, seconds):
    samples = [f"up 1 {START + seconds * number}\n" for number in range(200 // seconds)]  # a run of three minutes
    real_prometheus.blocks(["# TYPE up gauge\n", *samples, "# EOF\n"], tmp_path)
    with real_prometheus.serving(tmp_path) as prometheus:
        assert images.scrape_seconds(prometheus, START + 300) == seconds
