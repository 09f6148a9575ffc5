"""Spans of a run: their ids, which episodes are exported, and that no collector can disturb a rollout."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from support.builders import (
    GLANCE,
    SERVER_ERROR,
    FakeBackend,
    FakeSession,
    answer,
    gaze,
    ground,
    make_image,
    make_path,
    make_question,
    make_trajectory,
    now,
    request,
    run,
)
from support.collector import Collector
from support.loopback import responds, with_toolbox

from gog import metrics, tracing
from gog.agent import Episode
from gog.errors import UserError
from gog.spec import AgentSettings, StageConfig
from gog.tracing import episodes, export_queue, ids, otlp, stages
from gog.tracing.record import Span, Tree
from gog.trajectory import Failure, Reward
from gog_console import run_span
from gog_operator.api import lenient

STAGE = ids.root("uid").child("grpo", 1)
BROKEN = Failure(tool="imageSearch", kind="timeout")
JUDGED = Reward(accuracy=1.0, format=1.0, total=1.0)


class Kept:
    """An export queue that keeps what it is given."""

    def __init__(self):
        self.trees = []

    def put(self, tree):
        self.trees.append(tree)

    def close(self, seconds=0.0): ...


def spans(outcome):
    return metrics.definitions.TRACE_SPANS.labels(outcome)._value.get()


def config(endpoint, **settings):
    body = {"model": {"base": "tiny"}, "data": {"path": "/d"}, "store": {"uri": "file:///s"}, "stage": "grpo"}
    return StageConfig.model_validate(body | {"traces": {"endpoint": endpoint, **settings}})


def log_nothing(line):
    raise AssertionError(line)


# ---- ids


def test_ids_of_spans_follow_from_the_run_s_uid():
    root = ids.root("3f0c")
    assert root == ids.root("3f0c") and root.trace != ids.root("3f0d").trace
    assert ids.SpanContext.of(root.traceparent) == root and len(root.traceparent) == 55
    assert root.child("grpo", 1) == root.child("grpo", 1)
    assert len({root.child("grpo", 1).span, root.child("grpo", 2).span, root.child("sft", 1).span, root.span}) == 4
    assert root.child("grpo", 1).trace == root.trace


# ---- which episodes are exported


def exported_ids(share, key="grpo", count=1000):
    kept = Kept()
    tracer = episodes.Tracer(kept, STAGE, key, share)
    for number in range(count):
        with tracer.episode(f"grpo-1-q{number}-0") as span:
            span.record(make_trajectory(id=f"grpo-1-q{number}-0", reward=JUDGED))
    return [tree.context.span for tree in kept.trees]


def test_the_sampled_episodes_are_about_the_share_requested_and_always_the_same_ones():
    few = exported_ids(0.05)
    assert 30 < len(few) < 70
    assert few == exported_ids(0.05) and set(few) < set(exported_ids(0.1))
    assert exported_ids(0.0) == [] and len(exported_ids(1.0)) == 1000


def test_another_attempt_exports_the_same_episodes_under_its_own_span():
    kept = [Kept(), Kept()]
    for attempt, exports in enumerate(kept, 1):
        tracer = episodes.Tracer(exports, ids.root("uid").child("grpo", attempt), "grpo", 0.5)
        for number in range(40):
            with tracer.episode(f"e{number}") as span:
                span.record(make_trajectory(question_id=f"q{number}"))
    first, second = ([tree.root.attributes["gog.question_id"] for tree in each.trees] for each in kept)
    assert first == second and kept[0].trees[0].context != kept[1].trees[0].context


@pytest.mark.parametrize(
    "spoiled", [{"failures": (BROKEN,)}, {"reward": Reward(accuracy=None, format=1.0, total=None)}]
)
def test_episodes_that_a_tool_or_the_judge_failed_are_kept_besides_up_to_a_limit(spoiled):
    kept = Kept()
    tracer = episodes.Tracer(kept, STAGE, "grpo", 0.0)
    for step in (1, 2):
        for number in range(3 * episodes.KEPT_FAILURES):
            with tracer.episode(f"{step}-{number}") as span:
                span.record(make_trajectory(step=step, **spoiled))
        with tracer.episode(f"{step}-whole") as span:
            span.record(make_trajectory(step=step, reward=JUDGED))
    assert [tree.root.attributes["gog.step"] for tree in kept.trees] == [1] * 10 + [2] * 10
    assert {tree.root.attributes["gog.kept"] for tree in kept.trees} == {"failure"}


def test_an_episode_that_an_error_ended_is_exported_with_the_error():
    kept = Kept()
    with pytest.raises(ZeroDivisionError), episodes.Tracer(kept, STAGE, "grpo", 1.0).episode("e"):
        raise ZeroDivisionError
    assert kept.trees[0].root.error == "ZeroDivisionError"


# ---- spans of an episode


def traced(play, share=1.0):
    """Episodes that `play(tracer)` recorded."""
    kept = Kept()
    run(play(episodes.Tracer(kept, STAGE, "grpo", share)))
    return [tree.root for tree in kept.trees]


def shape(span):
    return (span.name, [shape(child) for child in span.children]) if span.children else span.name


def test_an_episode_is_turns_and_their_tool_calls_with_attempts():
    kept, tops = Kept(), []

    async def use(toolbox, provider):
        tracer = episodes.Tracer(kept, STAGE, "grpo", 1.0)
        session = FakeSession([ground(), gaze(1), answer()])
        episode = Episode(make_question(), make_image(), session, toolbox, AgentSettings(), "full", now)
        with tracer.episode("e") as span:
            trajectory = await episode.run()
            await toolbox.judge("who?", ["Ada"], "Ada")
            span.record(trajectory.model_copy(update={"reward": JUDGED, "step": 3, "level": "2"}))
        tops.append(trajectory)

    failing = {"imageSearch": [responds(b"", status=500)]}
    with_toolbox(failing, use, attempts=2)
    (top,) = [tree.root for tree in kept.trees]
    call = ["chat", ("execute_tool grounding", ["attempt"])]
    search = ["chat", ("execute_tool imageSearch", ["attempt", "attempt"])]
    turns = [("turn", call), ("turn", search), ("turn", ["chat"])]
    assert shape(top) == ("episode", [*turns, ("execute_tool judge", ["attempt"])])
    assert top.attributes["gog.reward"] == 1.0 and top.attributes["gog.level"] == "2"
    assert [turn.attributes["gog.action"] for turn in top.children[:3]] == ["ground", "gaze", "answer"]
    broken = top.children[1].children[1]
    assert broken.error == "server_error" and broken.attributes["gog.attempts"] == 2
    assert [attempt.error for attempt in broken.children] == ["server_error"] * 2
    assert top.error == "", "a tool failure is no error of the episode"
    tokens = [turn.children[0].attributes["gen_ai.usage.output_tokens"] for turn in top.children[:3]]
    written = [len(segment.tokens) for segment in tops[0].segments if segment.source == "model"]
    assert tokens == written and top.attributes["gen_ai.usage.output_tokens"] == sum(written)
    for span in top.walk():
        assert all(span.started <= child.started <= child.ended <= span.ended for child in span.children), span.name


def test_no_text_of_questions_pages_or_answers_is_exported():
    kept = Kept()

    async def use(toolbox, provider):
        session = FakeSession([ground("SECRETwords"), GLANCE, answer("SECRETanswer")])
        question = make_question(question="SECRETquestion", answers=("SECRETtruth",))
        episode = Episode(question, make_image(), session, toolbox, AgentSettings(), "full", now)
        with episodes.Tracer(kept, STAGE, "grpo", 1.0).episode("e") as span:
            span.record(await episode.run())

    page = {"hits": [{"title": "SECRETtitle", "url": "https://example.org/SECRET", "text": "SECRETpage"}]}
    with_toolbox({"imageSearch": [responds(page)], "grounding": [responds(b"SECRETfailure", status=500)]}, use)
    (tree,) = kept.trees
    assert len(list(tree.root.walk())) > 8 and "SECRET" not in repr(tree)


def test_episodes_side_by_side_keep_their_spans_apart_and_share_a_call_without_sharing_its_attempts():
    backend = FakeBackend([SERVER_ERROR, b"answer"], seconds=1.0)

    async def play(tracer):
        path = make_path(backend, attempts=2)

        async def one(name, query):
            with tracer.episode(name) as span:
                await request(path, query)
                span.record(make_trajectory(question_id=name))

        await asyncio.gather(one("a", "same"), one("b", "same"), one("c", "other"))
        await one("d", "same")

    found = {top.attributes["gog.question_id"]: top for top in traced(play)}
    assert {name: len(top.children[0].children) for name, top in found.items()} == {"a": 2, "b": 0, "c": 1, "d": 0}
    cache = {name: top.children[0].attributes["gog.cache"] for name, top in found.items()}
    assert cache == {"a": "miss", "b": "joined", "c": "miss", "d": "hit"}


def test_outside_of_a_traced_episode_nothing_is_recorded():
    with tracing.NOOP.episode("e") as episode:
        with tracing.span("turn") as span:
            assert span is None
        episode.record(make_trajectory())
    assert tracing.span("turn") is tracing.span("chat"), "one shared object that does nothing"


def test_without_traces_opentelemetry_is_not_imported():
    program = "import sys, gog_recipes.curate; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- export


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
