"""Spans of a run: who they are, which episodes are told, and what a collector can do to a rollout, which is nothing."""

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
    ask,
    gaze,
    ground,
    make_image,
    make_path,
    make_question,
    make_trajectory,
    now,
    run,
)
from support.collector import Collector
from support.loopback import says, with_toolbox

from gog import metrics, tracing
from gog.agent import Episode
from gog.errors import UserError
from gog.spec import AgentSettings, StageConfig
from gog.tracing import episodes, export_queue, ids, otlp, stages
from gog.tracing.record import Span, Tree
from gog.trajectory import Failure, Reward
from gog_console import run_span

STAGE = ids.root("uid").child("grpo", 1)
BROKEN = Failure(tool="imageSearch", kind="timeout")
JUDGED = Reward(accuracy=1.0, format=1.0, total=1.0)


class Kept:
    """An outlet that keeps what it is given."""

    def __init__(self):
        self.trees = []

    def put(self, tree):
        self.trees.append(tree)

    def close(self, patience=0.0): ...


def spans(outcome):
    return metrics.definitions.TRACE_SPANS.labels(outcome)._value.get()


def config(endpoint, **settings):
    body = {"model": {"base": "tiny"}, "data": {"path": "/d"}, "store": {"uri": "file:///s"}, "stage": "grpo"}
    return StageConfig.model_validate(body | {"traces": {"endpoint": endpoint, **settings}})


def say_nothing(line):
    raise AssertionError(line)


# ---- who a span is


def test_whoever_knows_the_run_names_the_same_spans():
    root = ids.root("3f0c")
    assert root == ids.root("3f0c") and root.trace != ids.root("3f0d").trace
    assert ids.SpanContext.of(root.traceparent) == root and len(root.traceparent) == 55
    assert root.child("grpo", 1) == root.child("grpo", 1)
    assert len({root.child("grpo", 1).span, root.child("grpo", 2).span, root.child("sft", 1).span, root.span}) == 4
    assert root.child("grpo", 1).trace == root.trace


# ---- which episodes are told


def names_told(share, key="grpo", count=1000):
    kept = Kept()
    tracer = episodes.Tracer(kept, STAGE, key, share)
    for number in range(count):
        with tracer.episode(f"grpo-1-q{number}-0") as told:
            told.tell(make_trajectory(id=f"grpo-1-q{number}-0", reward=JUDGED))
    return [tree.place.span for tree in kept.trees]


def test_the_share_of_episodes_is_about_what_was_asked_for_and_always_the_same_ones():
    few = names_told(0.05)
    assert 30 < len(few) < 70
    assert few == names_told(0.05) and set(few) < set(names_told(0.1))
    assert names_told(0.0) == [] and len(names_told(1.0)) == 1000


def test_another_attempt_tells_the_same_episodes_under_its_own_span():
    kept = [Kept(), Kept()]
    for attempt, outlet_ in enumerate(kept, 1):
        tracer = episodes.Tracer(outlet_, ids.root("uid").child("grpo", attempt), "grpo", 0.5)
        for number in range(40):
            with tracer.episode(f"e{number}") as told:
                told.tell(make_trajectory(question_id=f"q{number}"))
    first, second = ([tree.top.attributes["gog.question_id"] for tree in each.trees] for each in kept)
    assert first == second and kept[0].trees[0].place != kept[1].trees[0].place


@pytest.mark.parametrize(
    "spoiled", [{"failures": (BROKEN,)}, {"reward": Reward(accuracy=None, format=1.0, total=None)}]
)
def test_episodes_that_a_tool_or_the_judge_failed_are_kept_besides_but_not_without_end(spoiled):
    kept = Kept()
    tracer = episodes.Tracer(kept, STAGE, "grpo", 0.0)
    for step in (1, 2):
        for number in range(3 * episodes.KEPT_FAILURES):
            with tracer.episode(f"{step}-{number}") as told:
                told.tell(make_trajectory(step=step, **spoiled))
        with tracer.episode(f"{step}-whole") as told:
            told.tell(make_trajectory(step=step, reward=JUDGED))
    assert [tree.top.attributes["gog.step"] for tree in kept.trees] == [1] * 10 + [2] * 10
    assert {tree.top.attributes["gog.kept"] for tree in kept.trees} == {"failure"}


def test_an_episode_that_an_error_ended_is_told_with_it():
    kept = Kept()
    with pytest.raises(ZeroDivisionError), episodes.Tracer(kept, STAGE, "grpo", 1.0).episode("e"):
        raise ZeroDivisionError
    assert kept.trees[0].top.error == "ZeroDivisionError"


# ---- what an episode tells


def traced(play, share=1.0):
    """Trees of what `play(tracer)` did."""
    kept = Kept()
    run(play(episodes.Tracer(kept, STAGE, "grpo", share)))
    return [tree.top for tree in kept.trees]


def shape(span):
    return (span.name, [shape(child) for child in span.children]) if span.children else span.name


def test_an_episode_is_turns_and_their_tool_calls_with_attempts():
    kept, tops = Kept(), []

    async def use(toolbox, provider):
        tracer = episodes.Tracer(kept, STAGE, "grpo", 1.0)
        session = FakeSession([ground(), gaze(1), answer()])
        episode = Episode(make_question(), make_image(), session, toolbox, AgentSettings(), "full", now)
        with tracer.episode("e") as told:
            trajectory = await episode.run()
            await toolbox.judge("who?", ["Ada"], "Ada")
            told.tell(trajectory.model_copy(update={"reward": JUDGED, "step": 3, "level": "2"}))
        tops.append(trajectory)

    failing = {"imageSearch": [says(b"", status=500)]}
    with_toolbox(failing, use, attempts=2)
    (top,) = [tree.top for tree in kept.trees]
    call = ["chat", ("execute_tool grounding", ["attempt"])]
    search = ["chat", ("execute_tool imageSearch", ["attempt", "attempt"])]
    turns = [("turn", call), ("turn", search), ("turn", ["chat"])]
    assert shape(top) == ("episode", [*turns, ("execute_tool judge", ["attempt"])])
    assert top.attributes["gog.reward"] == 1.0 and top.attributes["gog.level"] == "2"
    assert [turn.attributes["gog.action"] for turn in top.children[:3]] == ["ground", "gaze", "answer"]
    broken = top.children[1].children[1]
    assert broken.error == "server_error" and broken.attributes["gog.attempts"] == 2
    assert [attempt.error for attempt in broken.children] == ["server_error"] * 2
    assert top.error == "", "infrastructure's fault is not the episode's"
    tokens = [turn.children[0].attributes["gen_ai.usage.output_tokens"] for turn in top.children[:3]]
    written = [len(segment.tokens) for segment in tops[0].segments if segment.source == "model"]
    assert tokens == written and top.attributes["gen_ai.usage.output_tokens"] == sum(written)
    for span in top.walk():
        assert all(span.begun <= child.begun <= child.ended <= span.ended for child in span.children), span.name


def test_no_text_of_questions_pages_or_answers_is_told():
    kept = Kept()

    async def use(toolbox, provider):
        session = FakeSession([ground("SECRETwords"), GLANCE, answer("SECRETanswer")])
        question = make_question(question="SECRETquestion", answers=("SECRETtruth",))
        episode = Episode(question, make_image(), session, toolbox, AgentSettings(), "full", now)
        with episodes.Tracer(kept, STAGE, "grpo", 1.0).episode("e") as told:
            told.tell(await episode.run())

    page = {"hits": [{"title": "SECRETtitle", "url": "https://example.org/SECRET", "text": "SECRETpage"}]}
    with_toolbox({"imageSearch": [says(page)], "grounding": [says(b"SECRETfailure", status=500)]}, use)
    (tree,) = kept.trees
    assert len(list(tree.top.walk())) > 8 and "SECRET" not in repr(tree)


def test_episodes_side_by_side_keep_their_spans_apart_and_share_a_call_without_sharing_its_attempts():
    backend = FakeBackend([SERVER_ERROR, b"answer"], seconds=1.0)

    async def play(tracer):
        path = make_path(backend, attempts=2)

        async def one(name, query):
            with tracer.episode(name) as told:
                await ask(path, query)
                told.tell(make_trajectory(question_id=name))

        await asyncio.gather(one("a", "same"), one("b", "same"), one("c", "other"))
        await one("d", "same")

    found = {top.attributes["gog.question_id"]: top for top in traced(play)}
    assert {name: len(top.children[0].children) for name, top in found.items()} == {"a": 2, "b": 0, "c": 1, "d": 0}
    told = {name: top.children[0].attributes["gog.cache"] for name, top in found.items()}
    assert told == {"a": "miss", "b": "joined", "c": "miss", "d": "hit"}


def test_outside_of_a_traced_episode_nothing_is_recorded():
    with tracing.NOOP.episode("e") as told:
        with tracing.span("turn") as span:
            assert span is None
        told.tell(make_trajectory())
    assert tracing.span("turn") is tracing.span("chat"), "one object for all that nobody wants"


def test_without_traces_opentelemetry_is_not_imported():
    program = "import sys, gog_recipes.curate; print([name for name in sys.modules if 'opentelemetry' in name])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# ---- on the way to the collector


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
    assert [(span.begun, span.ended) for span in collector.children(top)] == [(2, 3)] * 2


@pytest.mark.parametrize("status", [307, 401, 500])
def test_what_a_collector_refuses_is_dropped_counted_and_said_once(status):
    said, dropped = [], spans("dropped")
    with Collector(status) as collector:
        way = export_queue.Outlet(otlp.sender(collector.url), said.append)
        way.put(tree())
        way.close()
        way = export_queue.Outlet(otlp.sender(collector.url), said.append)
        for number in range(2 * export_queue.BATCH):
            way.put(tree(f"e{number}"))
        way.close()
        assert {path for path, _ in collector.requests} == {"/v1/traces"}, "a redirection is not followed"
    assert spans("dropped") - dropped == 3 * (1 + 2 * export_queue.BATCH)
    assert len(said) == 2 and collector.url in said[0] and str(status) in said[0]


def test_a_collector_that_is_away_costs_a_sentence():
    said, dropped = [], spans("dropped")
    way = export_queue.Outlet(otlp.sender("http://127.0.0.1:9"), said.append)
    way.put(tree())
    way.close()
    assert spans("dropped") - dropped == 3
    assert len(said) == 1 and said[0].startswith("traces: spans are dropped, and counted in gog_trace_spans_total: ")


def test_a_collector_that_hangs_holds_nobody_and_what_it_has_not_taken_counts_as_dropped():
    held, said, dropped = threading.Event(), [], spans("dropped")

    def hang(trees):
        held.wait()
        return

    way = export_queue.Outlet(hang, said.append)
    for number in range(export_queue.LONGEST + 2 * export_queue.BATCH):
        way.put(tree(f"e{number}"))
    assert spans("dropped") > dropped, "what finds the queue full is dropped at once"
    way.close(patience=0.05)
    everything = 3 * (export_queue.LONGEST + 2 * export_queue.BATCH)
    assert spans("dropped") - dropped == everything
    exported = spans("exported")
    held.set()
    way._thread.join(10)
    assert (spans("dropped") - dropped, spans("exported")) == (everything, exported), "nothing is counted twice"
    assert len(said) == 1


def test_all_that_was_put_before_the_end_arrives():
    exported = spans("exported")
    with Collector() as collector:
        way = export_queue.Outlet(otlp.sender(collector.url), say_nothing)
        for number in range(3 * export_queue.BATCH):
            way.put(tree(f"e{number}"))
        way.close()
    assert len(collector.spans) == 9 * export_queue.BATCH == spans("exported") - exported
    assert len(collector.requests) < 10, "many episodes to a request"


# ---- a stage's attempt and its run


def begin(endpoint, rank=0, **settings):
    return stages.begin(config(endpoint, **settings), rank, 2, lambda: "fresh", say_nothing)


def test_a_stage_tells_its_attempt_as_part_of_the_run_and_only_the_leader_does():
    run_ = ids.root("uid")
    with Collector() as collector:
        tracers = [begin(collector.url, rank, traceparent=run_.traceparent, attempt=2, share=1.0) for rank in (0, 1)]
        for rank, tracer in enumerate(tracers):
            with tracer.episode(f"e{rank}") as told:
                told.tell(make_trajectory())
            tracer.end()
            tracer.end()
    (attempt,) = collector.named("stage")
    assert (attempt.trace, attempt.parent, attempt.id) == (run_.trace, run_.span, run_.child("grpo", 2).span)
    assert attempt["gog.attempt"] == 2 and attempt["gog.outcome"] == "ended" and not attempt.failed
    played = collector.named("episode")
    assert {span.parent for span in played} == {attempt.id} and {span["gog.rank"] for span in played} == {0, 1}


def test_a_stage_that_no_run_has_begun_is_the_root_of_a_trace_of_its_own():
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
def test_however_a_stage_ends_its_span_says_so(end, code, outcome, error):
    with Collector() as collector:
        body = config(collector.url).model_dump_json()
        done = subprocess.run([sys.executable, "-c", PROGRAM, body, end], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    (attempt,) = collector.named("stage")
    assert attempt["gog.outcome"] == outcome and attempt.attributes.get("error.type") == error


def test_a_stage_whose_collector_fails_ends_well_and_says_one_line():
    with Collector(status=500) as collector:
        body = config(collector.url).model_dump_json()
        line = [sys.executable, "-c", PROGRAM, body, "import logging; logging.basicConfig(); tracer.end()"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("traces: spans are dropped") and done.stdout.count("\n") == 1


BEGUN = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


def document(collector, **traces):
    """A run as a cluster has it, whose times are whole seconds."""
    return {
        "kind": "GoGRun",
        "metadata": {"name": "world", "uid": "uid"},
        "spec": {"traces": {"endpoint": collector.url, **traces}},
        "status": {
            "startTime": BEGUN.isoformat(),
            "completionTime": (BEGUN + timedelta(seconds=90)).isoformat(),
            "conditions": [{"type": "Complete", "status": "True"}],
        },
    }


def test_a_run_that_is_over_is_the_root_and_told_again_the_same():
    with Collector() as collector:
        for _ in range(2):
            run_span.export(document(collector), BEGUN, say_nothing)
    one, other = collector.spans
    assert one == other and (one.trace, one.id, one.parent) == (ids.root("uid").trace, ids.root("uid").span, "")
    assert one.begun == BEGUN.timestamp() * 1e9 and one.ended - one.begun == 91e9, "to the end of the last second"
    assert one["gog.outcome"] == "Complete" and not one.failed


def test_a_run_without_traces_or_within_a_trace_of_somebody_else_tells_no_root():
    with Collector() as collector:
        run_span.export(document(collector, traceparent=ids.root("theirs").traceparent), BEGUN, say_nothing)
        run_span.export({"kind": "GoGRun", "spec": {}}, BEGUN, say_nothing)
    assert collector.requests == []


def test_a_root_that_nobody_takes_is_a_sentence():
    with Collector(status=500) as collector:
        said = []
        run_span.export(document(collector), BEGUN, said.append)
    assert len(said) == 1 and said[0].startswith("traces: the run's span is lost: ")


def test_a_missing_package_is_said_with_what_to_do(monkeypatch):
    monkeypatch.setattr(otlp, "PACKAGE", "opentelemetry_that_is_not.there")
    with pytest.raises(UserError) as caught:
        begin("http://127.0.0.1:9")
    assert str(caught.value) == ("traces: they need OpenTelemetry, which is not installed (pip install 'gog[traces]')")


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://user:word@collector:4318"])
def test_an_endpoint_is_a_url_without_a_password(endpoint):
    with pytest.raises(ValueError, match="endpoint"):
        config(endpoint)
