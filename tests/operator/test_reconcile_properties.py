"""Rules that hold for every history of a run, whatever happens in whatever order.

A history is a list of moves: a pass over an object, a job's end, a server's death, a crash of the control plane, a
cancellation, time. The fake cluster refuses a second live job of a stage and a job's name used twice by itself.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.job_names import plain
from support.kstatus import status_of
from support.operator_builders import READY_DATA, FakeCluster, make_run

from gog_operator import reconcile
from gog_operator.api.meta import CANCEL
from gog_operator.api.objects import GoGRun, Stage, ToolServer, document
from gog_operator.cluster.interface import Conflict
from gog_operator.plan.actions import ServerView, ToolCheckView

WORK = ("sweep", "answer", "sweep", "sweep", "answer", "sweep", "sweep", "sweep", "finish", "sweep", "wait")
"""Moves from any state of a run to the end of its current stage."""
SINGLE = ("sweep", "pass", "answer", "finish", "fail", "empty", "die", "crash", "wait")
MOVES = st.lists(
    st.one_of(st.just(WORK), st.just(("sweep", "sweep")), st.sampled_from([(step,) for step in SINGLE])), max_size=25
).map(lambda parts: [step for part in parts for step in part])


def keys(cluster):
    endpoints = {name for kind, name in cluster.things if kind == "ToolServer"} | set(cluster.servers)
    stages = [key for key in cluster.things if key[0] not in ("GoGRun", "ToolServer")]
    return [("GoGRun", "world"), *(("ToolServer", name) for name in sorted(endpoints)), *sorted(stages)]


def sweep(cluster):
    for kind, name in keys(cluster):
        reconcile.reconcile(cluster, kind, name, cluster.now)


def running(cluster):
    return sorted(name for name, job in cluster.jobs.items() if job.view.state == "running")


def move(cluster, step):
    if step == "sweep":
        sweep(cluster)
    elif step == "pass":
        reconcile.reconcile(cluster, *keys(cluster)[-1], cluster.now)
    elif step == "answer":
        cluster.answer()
    elif step in ("finish", "fail", "empty"):
        for name in running(cluster):
            cluster.finish(name, code=step == "fail", step=None if step == "empty" else 1, lines=("why",))
    elif step == "die":
        for name, view in list(cluster.servers.items())[:1]:
            cluster.servers[name] = ServerView("exited", view.url, view.port, view.started, bool(view.url), 1, ("why",))
    elif step == "crash":
        cluster.crash()
    elif step == "wait":
        cluster.now += timedelta(seconds=30)


def settle(cluster, limit=30):
    """Passes until nothing changes any more; the number of them that changed something."""
    for count in range(limit):
        before = len(cluster.calls)
        sweep(cluster)
        if len(cluster.calls) == before:
            return count
    raise AssertionError(f"still busy after {limit} passes: {cluster.calls[-10:]}")


def start(*, is_persistent=False, **spec):
    cluster = FakeCluster(is_persistent=is_persistent)
    cluster.create(make_run(**spec))
    return cluster


def finished(cluster):
    return {key: thing for key, thing in cluster.things.items() if thing.finished}


@given(MOVES, st.booleans())
def test_a_second_pass_over_an_unchanged_cluster_does_nothing(moves, persistent):
    cluster = start(is_persistent=persistent)
    for step in moves:
        move(cluster, step)
    settle(cluster)
    calls, events = len(cluster.calls), len(cluster.events)
    sweep(cluster)
    assert (len(cluster.calls), len(cluster.events)) == (calls, events)


@given(MOVES, MOVES, st.booleans())
def test_terminal_stays_terminal(before, after, persistent):
    cluster = start(is_persistent=persistent, backoffLimit=0)
    for step in before:
        move(cluster, step)
    done = finished(cluster)
    for step in after:
        move(cluster, step)
    for key, thing in done.items():
        assert cluster.things[key].status == thing.status


@given(MOVES, st.booleans())
def test_a_run_that_meets_no_more_faults_completes_whatever_happened_before(moves, persistent):
    cluster = start(is_persistent=persistent, backoffLimit=100)
    for step in moves:
        if step != "die":  # servers that die before they answer are given up
            move(cluster, step)
    for _ in range(60):
        for step in ("wait", "sweep", "sweep", "answer", "sweep", "sweep", "finish"):
            move(cluster, step)
        if cluster.things["GoGRun", "world"].finished:
            break
    run = cluster.things["GoGRun", "world"]
    assert run.holds("Complete") and not running(cluster)
    settle(cluster)
    assert not cluster.list(ToolServer) and not cluster.servers


@given(MOVES, st.booleans())
def test_generic_tools_see_the_end_of_every_object_and_no_end_before(moves, persistent):
    cluster = start(is_persistent=persistent, backoffLimit=0)
    for step in moves:
        move(cluster, step)
    settle(cluster)
    for thing in cluster.things.values():
        seen = status_of(document(thing))
        if isinstance(thing, ToolServer):
            assert seen in ("Current", "Failed") or not thing.holds("Ready")
        else:
            expected = "Current" if thing.holds("Complete") else "Failed" if thing.finished else "InProgress"
            assert seen == expected, thing.status.conditions


@given(MOVES, st.booleans())
def test_a_complete_stage_never_runs_again(moves, persistent):
    cluster = start(is_persistent=persistent, backoffLimit=100)
    for step in moves:
        done = {thing.name for thing in cluster.things.values() if isinstance(thing, Stage) and thing.finished}
        before = set(cluster.jobs)
        move(cluster, step)
        assert not {cluster.jobs[name].stage for name in set(cluster.jobs) - before} & done


@given(MOVES, st.booleans())
def test_attempt_numbers_only_increase_and_are_written_before_their_jobs_are_created(moves, persistent):
    cluster, seen = start(is_persistent=persistent, backoffLimit=100), {}
    for step in moves:
        move(cluster, step)
        for thing in cluster.things.values():
            if isinstance(thing, Stage):
                assert thing.status.attempt >= seen.get(thing.name, 0)
                seen[thing.name] = thing.status.attempt
    for name in cluster.jobs:
        stage, _, attempt = plain(name).rpartition("-a")
        assert f"status {stage}" in cluster.calls[: cluster.calls.index(f"job {name}")]
        assert int(attempt) <= seen[stage]


@given(MOVES, st.booleans())
def test_a_cancelled_run_ends_with_nothing_running(moves, persistent):
    cluster = start(is_persistent=persistent)
    for step in moves:
        move(cluster, step)
    cluster.patch("GoGRun", "world", spec={}, annotations={CANCEL: "yes"})
    settle(cluster)
    run = cluster.get(GoGRun, "world")
    assert run.finished and not running(cluster) and not cluster.servers


@given(MOVES, st.booleans(), st.booleans())
def test_one_stage_runs_at_a_time_and_none_after_the_run_has_finished(moves, cancel, persistent):
    cluster = start(is_persistent=persistent, backoffLimit=1)
    for number, step in enumerate(moves):
        if cancel and number == len(moves) // 2:
            cluster.patch("GoGRun", "world", spec={}, annotations={CANCEL: "yes"})
        move(cluster, step)
        unfinished = [
            thing.name for thing in cluster.things.values() if isinstance(thing, Stage) and not thing.finished
        ]
        assert len(unfinished) <= 1 and len(running(cluster)) <= 1
        assert not (cluster.things["GoGRun", "world"].finished and running(cluster))


@given(MOVES, st.booleans())
def test_a_suspended_run_settles_with_nothing_running(moves, persistent):
    cluster = start(is_persistent=persistent)
    for step in moves:
        move(cluster, step)
    cluster.patch("GoGRun", "world", spec={"suspend": True}, annotations={})
    settle(cluster)
    run = cluster.get(GoGRun, "world")
    assert (run.finished or run.holds("Suspended")) and not running(cluster) and not cluster.servers


def raced(write):
    """A run whose first pass meets another writer, and the run before it. write: (cluster, run) of the other writer."""
    cluster = start(is_persistent=True)
    run = cluster.get(GoGRun, "world")
    real, others = cluster.patch_status, [write]

    def racing(thing, status):
        if others:
            others.pop()(cluster, run)
        real(thing, status)

    cluster.patch_status = racing
    return cluster, run


def test_an_edit_by_a_user_during_a_pass_costs_neither_its_status_nor_its_events():
    cluster, run = raced(lambda cluster, run: cluster.patch("GoGRun", "world", spec={}, annotations={"note": "mine"}))
    cluster.made = READY_DATA
    assert reconcile.reconcile(cluster, *run.key, cluster.now) == 0, "and another pass decides about the edited object"
    written = cluster.get(GoGRun, "world")
    assert written.status != run.status and written.metadata.annotations == {"note": "mine"}
    assert [event.reason for _, event in cluster.events] == ["StageStarted"]


def test_a_pass_that_loses_the_race_for_the_status_to_another_operator_records_nothing():
    def other(cluster, run):
        cluster.patch_status(run, run.status.model_copy(update={"stage": "theirs"}))

    cluster, run = raced(other)
    with pytest.raises(Conflict):
        reconcile.reconcile(cluster, *run.key, cluster.now)
    assert cluster.events == [] and cluster.get(GoGRun, "world").status.stage == "theirs"


def test_a_pass_over_an_object_that_was_replaced_meanwhile_writes_nothing_to_its_successor():
    def replaced(cluster, run):
        cluster.delete("GoGRun", "world")
        cluster.create(make_run())
        cluster.patch("GoGRun", "world", spec={}, annotations={"note": "new"})

    cluster, run = raced(replaced)
    with pytest.raises(Conflict):
        reconcile.reconcile(cluster, *run.key, cluster.now)
    assert cluster.get(GoGRun, "world").status == run.status


def lived(*, loses_first_writes):
    """A whole run with checked tools. loses_first_writes: every status is written at the second try, after a conflict."""
    cluster = start(is_persistent=True, checkTools=True)
    real, lost = cluster.patch_status, set()

    def losing(thing, status):
        if loses_first_writes and (thing.key, status.model_dump_json()) not in lost:
            lost.add((thing.key, status.model_dump_json()))
            raise Conflict(thing.name)
        real(thing, status)

    cluster.patch_status = losing
    for _ in range(60):
        for step in ("sweep", "sweep", "answer", "sweep", "sweep", "finish"):
            move(cluster, step)
            cluster.tool_checks = dict.fromkeys(cluster.tool_checks, ToolCheckView("passed", "4 servers answer"))
    run = cluster.get(GoGRun, "world")
    assert run.finished
    conditions = {each.type: (each.status, each.reason, each.message) for each in run.status.conditions}
    return sorted((name, event.reason, event.message) for name, event in cluster.events), conditions


def test_a_conflict_over_a_status_loses_neither_an_event_nor_a_condition_of_what_was_done():
    assert lived(loses_first_writes=True) == lived(loses_first_writes=False)
