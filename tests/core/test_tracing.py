"""Spans of a run: their ids, which episodes are exported, and that no collector can disturb a rollout."""

from __future__ import annotations

import asyncio
import subprocess
import sys

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
from support.loopback import responds, with_toolbox
from support.traces import STAGE

from gog import tracing
from gog.agent import Episode
from gog.spec import AgentSettings
from gog.tracing import episodes, ids
from gog.trajectory import Failure, Reward

BROKEN = Failure(tool="imageSearch", kind="timeout")
JUDGED = Reward(accuracy=1.0, format=1.0, total=1.0)


class Kept:
    """An export queue that keeps what it is given."""

    def __init__(self):
        self.trees = []

    def put(self, tree):
        self.trees.append(tree)

    def close(self, seconds=0.0): ...


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
