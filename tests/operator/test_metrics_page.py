"""A local run's metrics: its own page, and the addresses of its processes' pages."""

from __future__ import annotations

import json
import os
import urllib.request

import pytest
from support.operator_builders import make_stage

from gog import metrics
from gog.errors import UserError
from gog.metrics import serving
from gog_console.cli import build_parser
from gog_operator import metrics_page, object_metrics
from gog_operator.api.objects import document
from gog_operator.plan.actions import Event


@pytest.fixture
def page(tmp_path):
    with metrics_page.exposed(tmp_path, 0, {}) as page:
        yield page


def asked(page, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{page.port}{path}", timeout=10) as answer:
        return answer.read().decode()


def pods(page):
    return {each["labels"]["pod"]: each["targets"] for each in json.loads(asked(page, "/targets"))}


def test_without_a_port_nothing_is_served_and_the_stages_environment_is_unchanged(tmp_path):
    environment = {}
    with metrics_page.exposed(tmp_path, None, environment) as page:
        assert page is None and environment == {}
    metrics_page.linger(None, environment)


def test_stages_serve_on_a_free_port_of_the_loopback_interface(tmp_path):
    environment = {serving.LINGER: "3"}
    with metrics_page.exposed(tmp_path, 0, environment):
        assert environment == {serving.PORT: "0", serving.HOST: "127.0.0.1", serving.LINGER: "3"}


def test_a_stage_is_a_target_while_its_process_lives(page, tmp_path):
    assert set(pods(page)) == {"gog"}
    for name, pid in (("grpo", os.getpid()), ("sft", 2**22 + 1)):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / serving.PORT_FILE).write_text(json.dumps({"port": 4711, "pid": pid}))
    (tmp_path / "work" / "curate").mkdir()
    (tmp_path / "work" / "curate" / serving.PORT_FILE).write_text('{"port"')
    assert pods(page) == {"gog": [f"127.0.0.1:{page.port}"], "grpo": ["127.0.0.1:4711"]}


def test_a_taken_port_is_one_line_of_error(page, tmp_path):
    with pytest.raises(UserError, match=f"cannot serve metrics at port {page.port}"):
        metrics_page.Exposition(tmp_path, page.port)


def test_objects_are_counted_by_kind_and_condition(page):
    page.objects.create(make_stage("SFTStage"))
    assert 'gog_operator_stages{condition="Pending",kind="SFTStage"} 1.0' in asked(page, "/metrics")
    assert 'gog_operator_runs{condition="Failed"} 0.0' in asked(page, "/metrics")


def test_the_first_true_condition_counts():
    body = document(make_stage("SFTStage"))
    assert object_metrics.condition_of(body) == "Pending"
    conditions = [{"type": "Ready", "status": "True"}, {"type": "Complete", "status": "False"}]
    assert object_metrics.condition_of({**body, "status": {"conditions": conditions}}) == "Ready"
    ended = [{"type": "Ready", "status": "False"}, {"type": "Complete", "status": "True"}]
    assert object_metrics.condition_of({**body, "status": {"conditions": ended}}) == "Complete"


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("Complete", "succeeded"),
        ("Retrying", "failed"),
        ("BackoffLimitExceeded", "failed"),
        ("Interrupted", "interrupted"),
    ],
)
def test_an_attempt_is_counted_when_an_event_reports_its_end(reason, outcome):
    def so_far():
        labels = {"kind": "SFTStage", "outcome": outcome}
        return metrics.RUNS.registry.get_sample_value("gog_operator_attempts_total", labels) or 0.0

    before = so_far()
    object_metrics.record_attempt(make_stage("SFTStage", status={"attempt": 1}), Event(reason, ""))
    assert so_far() == before + 1
    object_metrics.record_attempt(make_stage("SFTStage"), Event(reason, ""))  # it failed before there was an attempt
    assert so_far() == before + 1


def test_an_attempt_that_is_suspended_and_resumed_is_counted_once():
    def so_far():
        return sum(
            sample.value
            for family in metrics.RUNS.registry.collect()
            for sample in family.samples
            if sample.name == "gog_operator_attempts_total"
        )

    before = so_far()
    stage = make_stage("SFTStage", status={"attempt": 1})
    for reason in ("Suspended", "Interrupted"):
        object_metrics.record_attempt(stage, Event(reason, ""))
    assert so_far() == before + 1


def test_run_and_resume_take_a_port():
    assert build_parser().parse_args(["run", "f", "--metrics-port", "9400"]).metrics_port == 9400
    assert build_parser().parse_args(["resume", "n"]).metrics_port is None
