"""Decisions of a resync from listed documents alone: which objects need a pass, and when."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from support.operator_builders import NOW, manifest

from gog import metrics
from gog.metrics import definitions
from gog_operator import resync
from gog_operator.api.objects import SFTStage, parse
from gog_operator.build.platform import Platform
from gog_operator.cluster import documents, invalid_object, object_cache, paths, polls
from gog_operator.cluster.kube import Api, ApiError
from gog_operator.cluster.remote import RemoteCluster
from gog_operator.cluster.snapshot import Snapshot
from gog_operator.plan.actions import JobView
from gog_operator.resync import Resync, due
from gog_operator.workqueue import Key, WorkQueue

STORE = {"uri": "s3://bucket/world"}
DATA = {"uri": "s3://bucket/questions"}


def document(kind="SFTStage", name="tune", version="1", status=None, **spec):
    body = manifest(kind, name, **({"store": STORE, "data": DATA} | spec))
    body["metadata"] |= {"namespace": "ns", "uid": f"uid-{name}", "resourceVersion": version, "generation": 1}
    return {**body, "status": status} if status else body


def complete(**more):
    condition = {"type": "Complete", "status": "True", "reason": "Complete", "lastTransitionTime": NOW.isoformat()}
    return {"conditions": [condition], "completionTime": NOW.isoformat(), "observedGeneration": 1, **more}


def asked(body, now=NOW, *others):
    snapshot = Snapshot()
    for each in (body, *others):
        snapshot.put(paths.OURS[each["kind"]], each)
    cluster = RemoteCluster(snapshot, "ns", Platform(), lambda url, timeout: None)
    return due(cluster, body["kind"], body["metadata"]["name"], now)


def test_a_pod_is_asked_for_its_progress_only_while_its_job_runs():
    addresses = []
    cluster = RemoteCluster(Snapshot(), "ns", Platform(), lambda url, timeout: addresses.append(url))
    stage = parse(document("SFTStage", "tune", status={"attempt": 1}))
    for job in (None, JobView("lost"), JobView("failed", 1), JobView("succeeded", 0)):
        assert cluster.progress(stage, job) is None
    assert addresses == []
    cluster.progress(stage, JobView("running"))
    assert addresses == ["http://tune-a1-trainer-0-0.tune-a1.ns.svc:9090/progress"]


@pytest.mark.parametrize("name", ["evil.example/x?", "a@evil.example", "A", "", "-", "a.b"])
def test_a_name_of_a_job_in_a_status_that_is_none_never_becomes_part_of_an_address(name):
    addresses = []
    cluster = RemoteCluster(Snapshot(), "ns", Platform(), lambda url, timeout: addresses.append(url))
    own = {"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "name": name}
    cluster.progress(parse(document("SFTStage", "tune", status={"attempt": 1, "jobRef": own})), JobView("running"))
    (address,) = addresses
    assert address.startswith("http://tune-") and address.endswith("-a1.ns.svc:9090/progress")


def test_a_new_object_needs_a_pass_at_once():
    assert asked(document()) == 0


def test_a_finished_object_needs_no_pass():
    assert asked(document(status=complete())) is None


def test_an_object_with_a_ttl_needs_a_pass_when_it_expires():
    body = document(status=complete(), ttlSecondsAfterFinished=100)
    assert asked(body, NOW + timedelta(seconds=40)) == 60
    assert asked(body, NOW + timedelta(seconds=140)) <= 0


@pytest.mark.parametrize("controller", ["kueue.x-k8s.io/multikueue", "gog"])
def test_another_controller_s_object_needs_no_pass(controller):
    assert asked(document(managedBy=controller)) is None
    assert asked(document(managedBy="gog.dev/operator")) == 0, "the default of the documentation"


def test_an_unreadable_object_is_reported_once():
    body = document(backoffLimit=-1)
    assert asked(body) == 0
    sentence = "SFTStage: spec.backoffLimit: "
    with pytest.raises(documents.Unreadable, match=sentence) as error:
        documents.parse(SFTStage, body)
    body["status"] = invalid_object.report_patch(body, error.value.sentence, NOW)["status"]
    assert asked(body) is None


def test_a_plan_that_raises_for_one_object_does_not_stop_the_others(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(resync.reconcile, "decide", broken)
    assert asked(document()) == 0


class Server(Api):
    """A server with some objects, and without some resources."""

    def __init__(self, *bodies):
        self.bodies, self.unknown, self.calls = list(bodies), (), []

    def send(self, request):
        self.calls.append((request.method, request.path))
        resource = paths.resource_of(request.path)
        if resource in self.unknown:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return {"items": [each for each in self.bodies if paths.OURS.get(each["kind"]) is resource]}


def make(server, queue, *namespaces):
    looks = polls.SharedPolls(lambda url, seconds: None, lambda: 0.0, queue.add)
    return Resync(server, namespaces or ("ns",), Platform(), queue, lambda: NOW, object_cache.ObjectCache(), looks)


def test_a_resync_sends_one_request_per_resource_and_queues_only_objects_that_need_a_pass():
    bodies = [document(name=f"done-{number}", status=complete()) for number in range(50)]
    server, queue = Server(*bodies, document(name="new")), WorkQueue(lambda: 0.0)
    assert make(server, queue).once() == 1
    assert queue.take()[0] == Key("SFTStage", "ns", "new")
    assert queue.take()[0] is None
    assert len(server.calls) == 11 and {method for method, _ in server.calls} == {"GET"}


class OneForbidden(Server):
    """Returns 403 in one namespace, as if it was deleted together with the operator's role in it."""

    def send(self, request):
        if "/namespaces/gone/" in request.path:
            raise ApiError(403, "Forbidden", "toolservers.gog.dev is forbidden")
        return super().send(request)


def test_a_namespace_that_cannot_be_listed_does_not_stop_the_others():
    server, queue = OneForbidden(document(name="a")), WorkQueue(lambda: 0.0)
    for namespaces in (("gone", "ns"), ("ns", "gone")):
        assert make(server, queue, *namespaces).once() == 1


def test_a_resync_that_can_list_nothing_fails():
    with pytest.raises(ApiError, match="403"):
        make(OneForbidden(), WorkQueue(lambda: 0.0), "gone", "gone").once()


def test_a_namespace_that_may_not_be_listed_is_not_watched_until_it_may_be_listed_again():
    server = OneForbidden(document(name="a"))
    made = make(server, WorkQueue(lambda: 0.0), "gone", "ns")
    assert made.readable() == ("gone", "ns")
    made.once()
    assert made.readable() == ("ns",)
    server.send = lambda request: Server.send(server, request)
    made.once()
    assert made.readable() == ("gone", "ns")


def readable(namespace):
    return definitions.NAMESPACE_READABLE.labels(namespace)._value.get()


def test_the_only_namespace_is_reported_when_it_may_not_be_listed():
    metrics.record_readable("gone", True)
    made = make(OneForbidden(), WorkQueue(lambda: 0.0), "gone")
    with pytest.raises(ApiError, match="403"):
        made.once()
    assert readable("gone") == 0 and made.readable() == ("gone",)


def test_a_namespace_without_an_answer_keeps_what_was_reported_of_it():
    metrics.record_readable("gone", True)
    server = OneForbidden()
    made = make(server, WorkQueue(lambda: 0.0), "gone", "ns")
    made.once()
    server.send = lambda request: (_ for _ in ()).throw(ApiError(503, "", "down"))
    with pytest.raises(ApiError, match="503"):
        made.once()
    assert readable("gone") == 0 and made.readable() == ("ns",)


class OneDown(Server):
    """Returns 503 in one namespace, as an overloaded server may."""

    def send(self, request):
        if "/namespaces/slow/" in request.path:
            raise ApiError(503, "", "try again")
        return super().send(request)


def test_a_namespace_that_is_only_unavailable_is_watched_all_the_same():
    made = make(OneDown(), WorkQueue(lambda: 0.0), "slow", "ns")
    made.once()
    assert made.readable() == ("slow", "ns")


class Shared(dict):
    """Versions to which the watcher's thread adds one at every step of an iteration."""

    def __iter__(self):
        for key in super().__iter__():
            self[Key("sftstages.gog.dev", "ns", f"added-{len(self)}")] = "1"
            yield key


def test_versions_that_the_watcher_adds_during_a_resync_do_not_fail_it():
    done = make(Server(document(name="a")), WorkQueue(lambda: 0.0))
    done.seen = Shared({Key("sftstages.gog.dev", "ns", "b"): "1"})
    done.once()
    assert Key("sftstages.gog.dev", "ns", "a") in done.seen


def test_a_deleted_object_is_forgotten():
    server, queue = Server(document(name="a"), document(name="b", version="7")), WorkQueue(lambda: 0.0)
    done = make(server, queue)
    done.once()
    assert done.seen[Key("sftstages.gog.dev", "ns", "b")] == "7"
    server.bodies.pop()
    done.once()
    assert list(done.seen) == [Key("sftstages.gog.dev", "ns", "a")]


class Held:
    def held(self):
        return True


class Health:
    count = refusals = 0

    def record_resync(self):
        self.count += 1

    def record_refusal(self):
        self.refusals += 1


def resync_some(server, before=lambda number: None, rounds=3):
    """Resyncs a few times without waiting. Returns whether a restart was requested, and how many resyncs succeeded."""
    stop, health, restarts = threading.Event(), Health(), []

    class Stop:
        number = 0

        def is_set(self):
            return self.number >= rounds

        def wait(self, seconds):
            self.number += 1
            before(self.number)

    resync.run(make(server, WorkQueue(lambda: 0.0)), Held(), health, 60, Stop(), stop, lambda: restarts.append(1))
    return bool(restarts), health.count


def test_a_resync_works_without_kserve_and_restarts_the_operator_once_it_is_installed():
    server = Server(document())
    server.unknown = (paths.INFERENCE_SERVICES,)
    assert resync_some(server) == (False, 3)

    def install(number):
        server.unknown = ()

    assert resync_some(server, install)[0]


def test_a_failed_resync_is_repeated_and_not_counted():
    server = Server(document())
    working = server.send

    def down(*_, **__):
        raise ApiError(503, "", "down", 2)

    server.send = down

    def up(number):
        server.send = working

    assert resync_some(server, up) == (False, 2)


def test_a_refusal_counts_as_a_sign_of_life_and_not_as_a_resync():
    health, stop = Health(), threading.Event()
    made = make(OneForbidden(), WorkQueue(lambda: 0.0), "gone")
    assert resync._attempt(made, health, 60, stop) == resync.AGAIN
    assert (health.count, health.refusals, stop.is_set()) == (0, 1, False)
    made.api.send = OneDown().send
    made.namespaces = ("slow",)
    resync._attempt(made, health, 60, stop)
    assert health.refusals == 1, "a server that is down may be one that this operator cannot reach"
