"""Export of spans: what a collector gets, and what it costs when it fails."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from support.builders import (
    make_trajectory,
)
from support.collector import Collector
from support.traces import STAGE, config, log_nothing, spans

from gog.errors import UserError
from gog.tracing import export_queue, ids, otlp, stages
from gog.tracing.record import Span, Tree
from gog_console import run_span
from gog_operator.api import lenient


def tree(name="episode", children=2):
    top = Span(name, 1, 9, children=[Span("turn", 2, 3) for _ in range(children)])
    return Tree(top, STAGE.child(name), STAGE)


def test_a_collector_gets_the_tree_with_its_ids_at_the_address_of_the_manifest(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/elsewhere")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
    with Collector() as collector:
        assert otlp.sender(f"{collector.url}/otlp/")([tree()]) is None
    ((path, headers),) = collector.requests
    assert path == "/otlp/v1/traces" and headers["x-key"] == "secret"
    (top,) = collector.named("episode")
    assert (top.trace, top.id, top.parent) == (STAGE.trace, STAGE.child("episode").span, STAGE.span)
    assert [(span.started, span.ended) for span in collector.children(top)] == [(2, 3)] * 2


@pytest.mark.parametrize("status", [307, 401, 500])
def test_spans_that_a_collector_refuses_are_dropped_counted_and_logged_once(status):
    logged, dropped = [], spans("dropped")
    with Collector(status) as collector:
        exports = export_queue.ExportQueue(otlp.sender(collector.url), logged.append)
        exports.put(tree())
        exports.close()
        exports = export_queue.ExportQueue(otlp.sender(collector.url), logged.append)
        for number in range(2 * export_queue.BATCH):
            exports.put(tree(f"e{number}"))
        exports.close()
        assert {path for path, _ in collector.requests} == {"/v1/traces"}, "a redirection is not followed"
    assert spans("dropped") - dropped == 3 * (1 + 2 * export_queue.BATCH)
    assert len(logged) == 2 and collector.url in logged[0] and str(status) in logged[0]


def test_an_unreachable_collector_costs_one_log_line():
    logged, dropped = [], spans("dropped")
    exports = export_queue.ExportQueue(otlp.sender("http://127.0.0.1:9"), logged.append)
    exports.put(tree())
    exports.close()
    assert spans("dropped") - dropped == 3
    assert len(logged) == 1 and logged[0].startswith(
        "traces: spans are dropped, and counted in gog_trace_spans_total: "
    )


def test_a_hanging_collector_blocks_nothing_and_what_it_has_not_taken_counts_as_dropped():
    held, logged, dropped = threading.Event(), [], spans("dropped")

    def hang(trees):
        held.wait()
        return

    exports = export_queue.ExportQueue(hang, logged.append)
    for number in range(export_queue.MAX_WAITING + 2 * export_queue.BATCH):
        exports.put(tree(f"e{number}"))
    assert spans("dropped") > dropped, "what finds the queue full is dropped at once"
    exports.close(seconds=0.05)
    everything = 3 * (export_queue.MAX_WAITING + 2 * export_queue.BATCH)
    assert spans("dropped") - dropped == everything
    exported = spans("exported")
    held.set()
    exports._thread.join(10)
    assert (spans("dropped") - dropped, spans("exported")) == (everything, exported), "nothing is counted twice"
    assert len(logged) == 1


def test_every_tree_that_was_put_before_close_arrives():
    exported = spans("exported")
    with Collector() as collector:
        exports = export_queue.ExportQueue(otlp.sender(collector.url), log_nothing)
        for number in range(3 * export_queue.BATCH):
            exports.put(tree(f"e{number}"))
        exports.close()
    assert len(collector.spans) == 9 * export_queue.BATCH == spans("exported") - exported
    assert len(collector.requests) < 10, "many episodes to a request"


# ---- a stage's attempt and its run


def begin(endpoint, rank=0, **settings):
    return stages.begin(config(endpoint, **settings), rank, 2, lambda: "fresh", log_nothing)


def test_rank_0_exports_the_attempt_as_part_of_the_run_and_every_rank_its_episodes():
    run_ = ids.root("uid")
    with Collector() as collector:
        tracers = [begin(collector.url, rank, traceparent=run_.traceparent, attempt=2, share=1.0) for rank in (0, 1)]
        for rank, tracer in enumerate(tracers):
            with tracer.episode(f"e{rank}") as span:
                span.record(make_trajectory())
            tracer.end()
            tracer.end()
    (attempt,) = collector.named("stage")
    assert (attempt.trace, attempt.parent, attempt.id) == (run_.trace, run_.span, run_.child("grpo", 2).span)
    assert attempt["gog.attempt"] == 2 and attempt["gog.outcome"] == "ended" and not attempt.failed
    played = collector.named("episode")
    assert {span.parent for span in played} == {attempt.id} and {span["gog.rank"] for span in played} == {0, 1}


def test_a_stage_without_a_run_is_the_root_of_a_trace_of_its_own():
    with Collector() as collector:
        begin(collector.url).end()
    (attempt,) = collector.named("stage")
    assert attempt.parent == "" and attempt.trace == ids.root("fresh").trace


PROGRAM = """
import json, os, signal, sys
from gog.spec import StageConfig
from gog.tracing import stages
tracer = stages.begin(StageConfig.model_validate(json.loads(sys.argv[1])), 0, 1, lambda: "fresh", print)
exec(sys.argv[2])
"""


@pytest.mark.parametrize(
    ("end", "code", "outcome", "error"),
    [
        ("tracer.end()", 0, "ended", None),
        ("1 // 0", 1, "failed", "ZeroDivisionError"),
        ("sys.exit(2)", 2, "failed", "SystemExit"),
        ("os.kill(os.getpid(), signal.SIGTERM); signal.pause()", -signal.SIGTERM, "interrupted", "SIGTERM"),
    ],
)
def test_a_stage_s_span_is_exported_however_it_ends(end, code, outcome, error):
    with Collector() as collector:
        body = config(collector.url).model_dump_json()
        done = subprocess.run([sys.executable, "-c", PROGRAM, body, end], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    (attempt,) = collector.named("stage")
    assert attempt["gog.outcome"] == outcome and attempt.attributes.get("error.type") == error


def test_a_stage_whose_collector_fails_ends_well_and_logs_one_line():
    with Collector(status=500) as collector:
        body = config(collector.url).model_dump_json()
        line = [sys.executable, "-c", PROGRAM, body, "import logging; logging.basicConfig(); tracer.end()"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("traces: spans are dropped") and done.stdout.count("\n") == 1


STARTED = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


def ended(collector, kind="GoGRun", **traces):
    """A run as a cluster has it, whose times are whole seconds."""
    document = {
        "kind": kind,
        "metadata": {"name": "world", "uid": "uid"},
        "spec": {"traces": {"endpoint": collector.url, **traces}},
        "status": {
            "startTime": STARTED.isoformat(),
            "completionTime": (STARTED + timedelta(seconds=90)).isoformat(),
            "conditions": [{"type": "Complete", "status": "True"}],
        },
    }
    thing, problems = lenient.read(document)
    assert thing is not None and not problems
    return thing


def test_a_finished_run_is_the_root_and_is_the_same_when_exported_again():
    with Collector() as collector:
        for _ in range(2):
            run_span.export(ended(collector), STARTED, log_nothing)
    one, other = collector.spans
    assert one == other and (one.trace, one.id, one.parent) == (ids.root("uid").trace, ids.root("uid").span, "")
    assert one.started == STARTED.timestamp() * 1e9 and one.ended - one.started == 91e9, "to the end of the last second"
    assert one["gog.outcome"] == "Complete" and not one.failed


def test_a_run_without_traces_or_within_another_trace_exports_no_root():
    with Collector() as collector:
        stage = ended(collector, kind="SFTStage", traceparent=ids.root("theirs").traceparent)
        run_span.export(stage, STARTED, log_nothing)
        without, _ = lenient.read({"kind": "GoGRun", "spec": {}})
        run_span.export(without, STARTED, log_nothing)
    assert collector.requests == []


def test_a_root_that_the_collector_refuses_is_one_log_line():
    with Collector(status=500) as collector:
        logged = []
        run_span.export(ended(collector), STARTED, logged.append)
    assert len(logged) == 1 and logged[0].startswith("traces: the run's span is lost: ")


def test_a_missing_package_is_an_error_with_its_remedy(monkeypatch):
    monkeypatch.setattr(otlp, "PACKAGE", "opentelemetry_that_is_not.there")
    with pytest.raises(UserError) as caught:
        begin("http://127.0.0.1:9")
    assert str(caught.value) == ("traces: they need OpenTelemetry, which is not installed (pip install 'gog[traces]')")


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://user:word@collector:4318"])
def test_an_endpoint_is_a_url_without_a_password(endpoint):
    with pytest.raises(ValueError, match="endpoint"):
        config(endpoint)
