"""The end of a run whose artifacts are erased: what precedes the erasure, what it waits for, and when it gives up."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support.memory_api import MemoryApi
from support.operator_builders import NOW, FakeCluster, later, make_run, make_stage

from gog_operator import main, reconcile
from gog_operator.api.meta import ARTIFACTS, KEEP, Reason
from gog_operator.api.objects import GoGRun
from gog_operator.build.platform import Platform
from gog_operator.cluster import paths
from gog_operator.plan import actions, erasure
from gog_operator.plan.erasure import ErasureView
from gog_operator.workqueue import Key, WorkQueue

ABSENT = ErasureView("absent")


def leaving(*, since=NOW, finalizers=(ARTIFACTS,), policy="Delete", **annotations):
    run = make_run(artifactPolicy=policy)
    update = {"deletion_timestamp": since, "finalizers": finalizers, "annotations": annotations}
    return run.model_copy(update={"metadata": run.metadata.model_copy(update=update)})


def decide(run, view=ABSENT, children=(), now=NOW):
    return erasure.plan(run, erasure.Facts(children, view), now)


def after(run, decision):
    return run.model_copy(update={"status": decision.status})


def fate(decision):
    found = [each for each in decision.status.conditions if each.type == "ArtifactsErased"]
    return (found[0].status, found[0].reason, found[0].message) if found else None


def test_the_finalizer_follows_the_policy():
    kept, erased = make_run(), make_run(artifactPolicy="Delete")
    assert erasure.finalizer(kept) == () and erasure.finalizer(leaving()) == ()
    assert erasure.finalizer(erased) == (actions.SetFinalizer(ARTIFACTS, True),)
    assert erasure.finalizer(leaving(policy="Retain")) == (actions.SetFinalizer(ARTIFACTS, False),)


def test_stages_and_servers_are_deleted_before_anything_is_erased():
    stage = make_stage()
    decision = decide(leaving(), children=(stage,))
    assert decision.actions == (actions.DeleteObject(stage.kind, stage.name, stage.metadata.uid),)
    gone = stage.metadata.model_copy(update={"deletion_timestamp": NOW})
    assert decide(leaving(), children=(stage.model_copy(update={"metadata": gone}),)).actions == ()


@pytest.mark.parametrize("cascade", erasure.CASCADES)
def test_nothing_is_started_while_the_cluster_deletes_what_the_run_owns(cascade):
    decision = decide(leaving(finalizers=(cascade, ARTIFACTS)), children=(make_stage(),))
    assert decision.actions == () and decision.requeue_after == erasure.POLL_SECONDS
    assert decide(leaving(finalizers=(cascade, ARTIFACTS))).actions == ()


def test_a_job_erases_and_then_the_run_may_disappear():
    run = leaving()
    started = decide(run)
    assert started.actions == (actions.EraseArtifacts(),) and fate(started)[1] == Reason.ERASING
    run = after(run, started)
    assert decide(run, ErasureView("running", "erasing s3://b/p: 7 objects so far")).actions == ()
    done = decide(run, ErasureView("done", "12 objects of s3://b/p"))
    assert fate(done) == ("True", Reason.ERASED, "12 objects of s3://b/p") and done.actions == ()
    assert done.events[0].reason == "Erased" and done.requeue_after == 0
    last = decide(after(run, done), ABSENT)
    assert last.actions == (actions.SetFinalizer(ARTIFACTS, False),) and last.status == done.status


def test_pods_that_may_still_write_are_waited_for():
    decision = decide(leaving(), ErasureView("waiting", "waiting for the end of pod world-sft-a1-trainer-0-0"))
    assert decision.actions == () and "trainer-0-0" in fate(decision)[2]


@pytest.mark.parametrize(
    ("state", "reason"), [("failed", Reason.ERASE_FAILED), ("shared", Reason.STORE_SHARED)], ids=["failed", "shared"]
)
def test_an_attempt_that_fails_is_repeated_after_growing_delays_and_reported_once(state, reason):
    run, view, waits, events = leaving(), ErasureView(state, "s3://b/p does not answer"), [], []
    now = NOW
    for _ in range(12):
        decision = decide(run, view, now=now)
        assert fate(decision) == ("False", reason, view.message)
        waits.append(decision.requeue_after)
        events += decision.events
        run, now = after(run, decision), now + timedelta(seconds=decision.requeue_after)
        again = decide(run, view, now=now)
        assert again.actions == (actions.EraseArtifacts(),)
        run = after(run, again)
    assert waits[:4] == [2, 4, 8, 16] and waits[-1] == 300 and len(events) == 1 and events[0].warning


def test_a_delay_is_kept():
    run = leaving()
    run = after(run, decide(run, ErasureView("failed", "denied")))
    decision = decide(run, ErasureView("failed", "denied"), now=later(0.5))
    assert decision.actions == () and decision.requeue_after == 1.5 and run.status.erasure.failures == 1


@pytest.mark.parametrize(
    ("run", "view", "now", "why"),
    [
        (leaving(**{KEEP: "yes"}), ABSENT, NOW, KEEP),
        (leaving(policy="Retain"), ABSENT, NOW, "artifactPolicy is Retain"),
        (leaving(), ErasureView("forbidden"), NOW, "namespace is being deleted"),
        (leaving(), ErasureView("failed", "no such bucket"), later(86_400), "within 24 hours: no such bucket"),
        (leaving(finalizers=("foregroundDeletion", ARTIFACTS)), ErasureView("waiting"), later(86_400), "24 hours"),
    ],
)
def test_a_deletion_never_waits_forever(run, view, now, why):
    decision = decide(run, view, children=(make_stage(),) if view.state == "waiting" else (), now=now)
    status, reason, message = fate(decision)
    assert (status, reason) == ("False", Reason.KEPT) and why in message and decision.events[0].warning
    assert decide(after(run, decision), view, now=now).actions == (actions.SetFinalizer(ARTIFACTS, False),)


def test_a_run_without_the_finalizer_is_left_to_the_cluster():
    decision = decide(leaving(finalizers=("foregroundDeletion",)), children=(make_stage(),))
    assert decision == actions.Decision(leaving().status)


# -- pass by pass


@pytest.fixture
def cluster():
    made = FakeCluster(is_persistent=True)
    made.create(make_run(artifactPolicy="Delete"))
    return made


def passes(cluster, count=1, now=NOW):
    for _ in range(count):
        reconcile.reconcile(cluster, "GoGRun", "world", now)


def test_a_run_has_its_finalizer_before_anything_can_write(cluster):
    passes(cluster)
    assert [each for each in cluster.calls if not each.startswith("status")] == [
        "create world",
        f"finalizers world {ARTIFACTS}",
        "data",
    ]


def test_a_deleted_run_creates_nothing_any_more_and_ends_when_its_artifacts_are_erased(cluster):
    passes(cluster, 2)
    cluster.answer()
    passes(cluster, 3)
    assert len(cluster.children(cluster.get(GoGRun, "world"))) == 5
    cluster.delete("GoGRun", "world")
    cluster.calls.clear()
    passes(cluster, 3)
    assert len([each for each in cluster.calls if each.startswith("delete ")]) == 5
    assert cluster.calls[-2:] == ["erase world", "status world"]
    cluster.erased = ErasureView("done", "12 objects")
    passes(cluster, 3)
    assert cluster.get(GoGRun, "world") is None
    assert [event.reason for _, event in cluster.events][-1] == "Erased"
    assert not [each for each in cluster.calls if each.startswith("create ")]


def test_the_time_to_live_of_a_run_that_is_being_deleted_is_over(cluster):
    passes(cluster)
    run = cluster.get(GoGRun, "world")
    cluster.patch("GoGRun", "world", spec={"ttl_seconds_after_finished": 0}, annotations={})
    cluster.delete("GoGRun", "world")
    cluster.calls.clear()
    passes(cluster, 4)
    assert "delete world" not in cluster.calls and run.metadata.uid


def test_a_policy_that_becomes_retain_lets_go_of_a_run_that_is_finished_or_not(cluster):
    passes(cluster)
    cluster.patch("GoGRun", "world", spec={"artifact_policy": "Retain"}, annotations={})
    passes(cluster)
    assert cluster.get(GoGRun, "world").metadata.finalizers == ()


def test_a_deleted_run_that_cannot_be_read_may_disappear():
    api = MemoryApi()
    body = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "world", "namespace": "n"}}
    body["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["theirs", ARTIFACTS]}
    path = paths.OURS["GoGRun"].path("n", "world")
    api.put(paths.OURS["GoGRun"], {**body, "spec": {"model": 5}})
    main.Workers(api, Platform(), WorkQueue()).process(Key("GoGRun", "n", "world"))
    assert api.objects[path]["metadata"]["finalizers"] == ["theirs"]
