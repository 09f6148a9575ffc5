"""How often a running stage asks the API server, and that an outdated cache costs time, never a wrong decision."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from support.memory_api import MemoryApi
from support.operator_builders import NOW, READY_DATA, holding, later, make_stage, manifest

from gog_operator import reconcile
from gog_operator.api.objects import KINDS, GoGRun
from gog_operator.build import children
from gog_operator.build.platform import Platform
from gog_operator.cluster import documents, paths
from gog_operator.cluster.kube import ApiError
from gog_operator.main import Workers
from gog_operator.plan import stage
from gog_operator.plan.actions import JobView, StoreView
from gog_operator.resync import Resync
from gog_operator.watch import Watcher
from gog_operator.workqueue import Key, WorkQueue

STORE = {"uri": "s3://b/p"}
URL = {"url": "http://tool.example.org"}
TOOLS = dict.fromkeys(("grounding", "imageSearch", "textSearch", "judge"), URL)
SKIPPED = ["curate", "sft", "stratify", "evaluate"]
JOB = paths.VOLCANO_JOBS.path("ns", "world-grpo-")
"""What the path of a job begins with; the mark of its stage and the number of its attempt follow."""
RUN, STAGE = paths.OURS["GoGRun"].path("ns", "world"), paths.OURS["GRPOStage"].path("ns", "world-grpo")


class Cluster:
    """A namespace with one run whose GRPO is under way, and its operator. `late` events wait until `deliver`."""

    def __init__(self):
        self.seconds, self.step, self.late, self.waiting = 0.0, 0, False, []
        self.api = MemoryApi()
        self.start()
        self.create()
        self.resync.once()
        self.work()
        self.api.requests.clear()

    def start(self):
        """Starts an operator, whose memory is empty."""
        self.queue = WorkQueue(self.clock, lambda: 0.5)
        self.workers = Workers(self.api, Platform(), self.queue, self.now, self.trainer, self.clock)
        cache, polls = self.workers.cache, self.workers.polls
        self.resync = Resync(self.api, ("ns",), Platform(), self.queue, self.now, cache, polls)
        self.watcher = Watcher(self.queue, self.resync.seen, cache)
        self.api.events = self.event

    def clock(self):
        return self.seconds

    def now(self):
        return NOW + timedelta(seconds=int(self.seconds))

    def trainer(self, url, seconds):
        self.step += 1
        return {"step": self.step, "total": 500, "metrics": {"reward": 0.5}}

    def event(self, resource, type_, body):
        if self.late:
            self.waiting.append((resource, type_, body))
        else:
            self.watcher.event(resource, type_, body)

    def deliver(self):
        self.late, waiting, self.waiting = False, self.waiting, []
        for each in waiting:
            self.watcher.event(*each)

    def create(self):
        body = manifest(store=STORE, data={"uri": "s3://b/d"}, stages={"skip": SKIPPED}, endpoints=TOOLS)
        run = self.put(GoGRun, body)
        found = {"checkpoints": {key: {"step": 1, "complete": True} for key in SKIPPED}}
        self.put_job(paths.JOBS, "world-check", run, found)
        for each in children.tool_servers(run, run.spec.store):
            self.put(KINDS[each.kind], documents.created(each, "ns"))
        for _ in range(5):  # the stage, its attempt's number, its job
            self.resync.once()
            self.work()
            for job in self.jobs():
                self.put_pod(job.rpartition("/")[2])
                self.api.change(job, {"status": {"state": {"phase": "Running"}}})

    def put(self, kind, body):
        body["metadata"]["namespace"] = "ns"
        return documents.parse(kind, self.api.put(paths.OURS[kind.__name__], body))

    def put_job(self, resource, name, owner, result):
        metadata = {"name": name, "namespace": "ns", "labels": {"app.kubernetes.io/name": "gog"}}
        metadata["annotations"] = {"gog.dev/result": json.dumps(result)}
        metadata["ownerReferences"] = [{"kind": owner.kind, "name": owner.name, "uid": owner.metadata.uid}]
        self.api.put(resource, {"kind": "Job", "metadata": metadata})

    def put_pod(self, job):
        """The job's pod, as a node reports one that runs."""
        metadata = {"name": f"{job}-worker-0", "namespace": "ns", "labels": {"volcano.sh/job-name": job}}
        running = {"name": "trainer", "imageID": "registry.example/gog-trainer@sha256:" + "a" * 64}
        status = {"phase": "Running", "containerStatuses": [{**running, "ready": True, "state": {"running": {}}}]}
        self.api.put(paths.PODS, {"kind": "Pod", "metadata": metadata, "status": status})

    def work(self, seconds=0.0):
        """Makes the passes and polls of so many seconds."""
        end = self.seconds + seconds
        while True:
            key, wait = self.queue.take()
            poll, more = self.workers.polls.queue.take()
            if key is not None:
                self.workers.process(key)
            if poll is not None:
                self.workers.polls.process(poll)
            if key is poll is None:
                self.seconds += min(wait, more)
                if self.seconds > end:
                    self.seconds = end
                    return

    def status(self, path):
        return self.api.objects[path].get("status", {})

    def ready(self, path):
        return next(each for each in self.status(path)["conditions"] if each["type"] == "Ready")

    def jobs(self):
        return [path for path in self.api.objects if path.startswith(JOB)]

    @property
    def job(self):
        """The path of its one job."""
        (found,) = self.jobs()
        return found


@pytest.fixture
def cluster():
    made = Cluster()
    assert made.ready(STAGE)["reason"] == "Running" and made.ready(RUN)["reason"] == "Training"
    return made


def test_a_minute_of_a_running_stage_costs_a_write_of_it_and_of_its_run_for_each_new_progress(cluster):
    cluster.work(60)
    assert set(cluster.api.requests) == {"PATCH"}
    assert cluster.api.requests["PATCH"] <= 26
    assert cluster.status(STAGE)["progress"]["step"] == cluster.step
    assert cluster.status(RUN)["summary"]["progress"] == f"{cluster.step}/500"


def test_progress_that_does_not_change_costs_nothing(cluster):
    cluster.workers.polls._request = lambda url, seconds: {"step": 7, "total": 500}
    cluster.work(10)
    cluster.api.requests.clear()
    cluster.work(600)
    assert cluster.api.requests == {}


def test_a_stage_whose_pods_wait_for_a_node_reads_them_at_intervals_and_nothing_else(cluster):
    cluster.api.remove(paths.PODS.path("ns", f"{cluster.job.rpartition('/')[2]}-worker-0"))
    cluster.api.change(cluster.job, {"status": {"state": {"phase": "Pending"}}})
    cluster.work(10)
    cluster.api.requests.clear()
    cluster.work(60)
    assert set(cluster.api.requests) == {"GET"} and cluster.api.requests["GET"] <= 3 * 13
    cluster.api.change(cluster.job, {"status": {"state": {"phase": "Running"}}})
    before = cluster.step
    cluster.work(10)
    assert cluster.step > before, "its event ends the wait"


def test_a_change_of_a_child_is_decided_on_objects_that_are_read_again(cluster):
    cluster.api.change(cluster.job, {"status": {"state": {"phase": "Completed"}}})
    cluster.work(1)
    assert cluster.ready(STAGE)["reason"] == "CheckingStore"
    assert cluster.api.requests["GET"] >= 6 and cluster.api.requests["POST"] == 2, "the check and its settings"


def test_a_job_whose_event_is_late_is_not_taken_for_a_lost_one(cluster):
    job = cluster.job
    cluster.workers.cache.remove(job)
    cluster.queue.add(Key("GRPOStage", "ns", "world-grpo"))
    cluster.work(30)
    assert cluster.jobs() == [job] and cluster.status(STAGE)["attempt"] == 1


def test_the_end_of_a_job_whose_event_was_lost_is_found_by_the_next_resync(cluster):
    cluster.late = True
    cluster.api.change(cluster.job, {"status": {"state": {"phase": "Completed"}}})
    cluster.work(60)
    assert cluster.ready(STAGE)["reason"] == "Running"
    cluster.resync.once()
    cluster.work()
    assert cluster.ready(STAGE)["reason"] == "CheckingStore" and len(cluster.jobs()) == 1


def test_a_stage_that_another_operator_has_changed_is_not_overwritten_from_the_cache(cluster):
    cluster.late = True
    first = cluster.job
    cluster.api.change(first, {"status": {"state": {"phase": "Failed"}}})
    job = {"name": first.rpartition("/")[2].replace("-a1", "-a2")}
    cluster.api.change(STAGE, {"status": {"attempt": 2, "observedAttempt": 1, "jobRef": job}})
    cluster.work(60)
    assert cluster.status(STAGE)["attempt"] == 2
    assert sorted(cluster.jobs()) == [first, first.replace("-a1", "-a2")], (
        "its number was written: the job follows, once"
    )
    cluster.deliver()
    cluster.work(60)
    assert cluster.status(STAGE)["attempt"] == 2 and len(cluster.jobs()) == 2


def test_a_stage_that_is_gone_gets_no_job_from_the_cache(cluster):
    cluster.late = True
    for path in (cluster.job, STAGE):
        cluster.api.remove(path)
    cluster.work(60)
    assert STAGE not in cluster.api.objects and cluster.jobs() == []


def test_the_suspension_of_a_run_that_the_cache_does_not_know_yet_is_not_undone(cluster):
    cluster.late = True
    cluster.api.change(RUN, {"spec": {"suspend": True}, "metadata": {"generation": 2}})
    cluster.work(60)
    assert cluster.api.objects[RUN]["spec"]["suspend"]
    cluster.deliver()
    cluster.work(10)
    assert cluster.api.objects[STAGE]["spec"]["suspend"]


def test_an_operator_that_starts_finds_the_trainers_of_running_stages_by_its_first_resync(cluster):
    cluster.start()
    cluster.resync.once()
    before = cluster.step
    cluster.work(10)
    assert cluster.step > before


def test_an_object_whose_status_is_never_accepted_is_tried_less_and_less_often(cluster):
    send = cluster.api.send

    def conflicting(request):
        if request.method == "PATCH":
            raise ApiError(409, "Conflict", "the object has been modified")
        return send(request)

    cluster.api.send = conflicting
    cluster.workers.polls._request = lambda url, seconds: {"step": 7, "total": 500}
    cluster.work(600)
    assert cluster.queue.failed(Key("GRPOStage", "ns", "world-grpo")) > 60
    assert cluster.api.requests["GET"] < 150


def test_where_news_cause_a_pass_the_next_one_is_due_at_a_deadline_only():
    def again(at, job, status, wakes=True, **spec):
        thing = make_stage(status={"attempt": 1, "attempt_time": NOW, **status}, **spec)
        facts = stage.Facts(job, StoreView("unknown"), None, READY_DATA, wakes=wakes)
        return stage.plan(thing, facts, later(at)).requeue_after

    running, queued = JobView("running"), JobView("running", started=False)
    limits, since = {"activeDeadlineSeconds": 60, "queueDeadlineSeconds": 600}, {"running_time": NOW}
    assert again(0, running, since, wakes=False) == stage.POLL_SECONDS and again(0, running, since) is None
    assert again(100, queued, {}, **limits) == 500
    assert again(40, running, since, **limits) == 20
    assert again(60, running, since, **limits) == stage.POLL_SECONDS, "until the job has ended"


def test_a_look_writes_figures_and_neither_attempts_nor_conditions():
    old = make_stage(status={"attempt": 1}).status
    assert reconcile._only_figures(old, old.model_copy(update={"checkpoint": "grpo/5"}))
    for other in ({"attempt": 2}, {"failures": 1}, {"conditions": holding("Ready")}):
        assert not reconcile._only_figures(old, old.model_copy(update=other))
