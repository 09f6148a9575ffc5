"""The catalogue and the step metrics: every list of stages, servers and figures is derived from their rows."""

from __future__ import annotations

import pytest

from gog import actions, catalog, spec, step_metrics
from gog.metrics import definitions


def test_a_stage_needs_only_stages_that_come_before_it() -> None:
    for place, stage in enumerate(catalog.STAGES):
        assert set(stage.needs) <= set(catalog.STAGE_NAMES[:place])


def test_every_stage_has_settings_and_every_server_an_endpoint_in_the_manifest() -> None:
    assert set(spec.Stages.model_fields) - {"skip"} == set(catalog.STAGE_NAMES)
    assert set(spec.EndpointsSpec.model_fields) == {server.field for server in catalog.SERVERS}
    assert {field.alias for field in spec.EndpointsSpec.model_fields.values()} == set(catalog.SERVER_NAMES)


@pytest.mark.parametrize(
    ("name", "command", "field"),
    [("imageSearch", "image-search", "image_search"), ("judge", "judge", "judge")],
)
def test_a_server_s_command_and_field_follow_from_its_name(name: str, command: str, field: str) -> None:
    server = catalog.SERVER_BY_NAME[name]
    assert (server.command, server.field) == (command, field)


def test_every_action_but_the_answer_is_one_of_a_tool_in_the_catalogue() -> None:
    assert {f"</{tag}>" for tag in (*catalog.ACTION_TAGS, "answer")} == set(actions.CLOSING_TAGS)


def test_the_policy_cannot_call_the_judge() -> None:
    assert [tool.name for tool in catalog.TOOLS if not tool.callable] == ["judge"]


def test_no_two_step_metrics_share_a_key_or_a_series_of_a_gauge() -> None:
    keys = [row.key for row in step_metrics.METRICS]
    assert len(keys) == len(set(keys))
    series = [(row.gauge, *sorted(row.labels.items())) for row in step_metrics.METRICS if row.gauge]
    assert len(series) == len(set(series))


@pytest.mark.parametrize("row", step_metrics.METRICS, ids=lambda row: row.key)
def test_a_step_metric_is_shown_only_for_stages_that_report_it(row: step_metrics.StepMetric) -> None:
    assert set(row.chart_of) | set(row.status_of) | set(row.summary_of) <= set(row.stages) <= set(catalog.STAGE_NAMES)
    assert row.help.endswith(".") and row.unit
    assert not row.gauge or row.gauge in definitions.STEP_GAUGES
