"""Trainers are polled at a bounded rate, fairly, and beside the passes; what waits for its pods is woken."""

from __future__ import annotations

import pytest

from gog_operator.cluster.polls import POLL_RATE, POLL_SECONDS, WANTED_SECONDS, DirectPolls, ListedPolls, SharedPolls
from gog_operator.workqueue import Key

GOOD = {"step": 7, "total": 10, "metrics": {"reward": 0.5}}


def stage(name="a", namespace="ns"):
    return Key("GRPOStage", namespace, name)


def url(key):
    return f"http://{key.name}.{key.namespace}/progress"


class Trainers:
    """Every trainer of a cluster, and the clock. A request takes some seconds."""

    def __init__(self, *, answer=GOOD, seconds=0.01):
        self.answer, self.seconds, self.now = answer, seconds, 0.0
        self.asked, self.woken = [], []
        self.polls = SharedPolls(self.request, lambda: self.now, self.woken.append)

    def request(self, url, seconds):
        self.asked.append((self.now, url))
        self.now += self.seconds
        return self.answer(len(self.asked)) if callable(self.answer) else self.answer

    def run(self, seconds, *keys):
        """Sends the requests that are due, with a pass over each stage whenever it has news."""
        end = self.now + seconds
        while self.now < end:
            for key in keys:
                self.polls.progress(key, url(key))
            self.send()
            self.now += 0.25
        return self

    def send(self):
        while (key := self.polls.queue.take()[0]) is not None:
            self.polls.process(key)

    def count(self, key):
        return sum(each == url(key) for _, each in self.asked)


def changing(number):
    return GOOD | {"step": number}


def test_a_trainer_is_polled_at_intervals_however_often_its_stage_is_reconciled():
    assert Trainers().run(100, stage()).count(stage()) == 100 / POLL_SECONDS


def test_a_pass_takes_the_newest_progress_and_never_waits_for_it():
    trainers = Trainers(seconds=30.0)
    assert trainers.polls.progress(stage(), url(stage())) is None and trainers.asked == []
    trainers.send()
    assert trainers.polls.progress(stage(), url(stage())).step == 7
    assert trainers.polls.progress(stage(), url(stage())).step == 7, "a pass that fails loses no progress"


def test_only_changed_progress_queues_a_pass():
    assert Trainers().run(100, stage()).woken == [stage()]
    assert len(Trainers(answer=changing).run(100, stage()).woken) == 20


def test_many_trainers_are_polled_at_one_rate_and_share_it():
    keys = [stage(f"s{number}") for number in range(200)]
    trainers = Trainers(seconds=0.0).run(100, *keys)
    assert len(trainers.asked) == pytest.approx(100 * POLL_RATE, rel=0.05)
    counts = [trainers.count(key) for key in keys]
    assert max(counts) - min(counts) <= 1


def test_a_tenant_with_many_trainers_does_not_slow_down_those_of_another():
    many, own = [stage(f"s{number}", "bad") for number in range(500)], stage("a", "good")
    trainers = Trainers(seconds=0.0, answer=changing).run(100, *many, own)
    assert trainers.count(own) >= 19


def test_a_trainer_whose_requests_time_out_is_polled_less_and_less_often():
    assert len(Trainers(answer=None, seconds=1.0).run(600, stage()).asked) < 20
    assert len(Trainers(answer=None, seconds=0.001).run(600, stage()).asked) == 120, "a refused connection is cheap"


def test_trainers_of_one_namespace_leave_a_thread_for_the_others():
    polls = SharedPolls(lambda url, seconds: None, lambda: 0.0, lambda key: None, threads=2)
    for number in range(50):
        polls.progress(stage(f"s{number}", "slow"), f"http://{number}")
    polls.progress(stage("a", "other"), "http://a")
    assert {polls.queue.take()[0].namespace, polls.queue.take()[0].namespace} == {"slow", "other"}


def test_the_progress_of_an_earlier_attempt_is_not_taken_for_the_present_one_s():
    trainers = Trainers()
    trainers.polls.progress(stage(), "http://a1")
    trainers.send()
    assert trainers.polls.progress(stage(), "http://a2") is None
    trainers.send()
    assert [each for _, each in trainers.asked] == ["http://a1", "http://a2"], "and the next is asked at once"


def test_a_trainer_whose_job_has_ended_is_polled_no_more():
    trainers = Trainers().run(10, stage())
    trainers.polls.stop(stage())
    before = len(trainers.asked)
    trainers.run(100)
    assert len(trainers.asked) == before


def test_a_trainer_that_no_pass_asks_for_is_forgotten():
    trainers = Trainers().run(10, stage())
    trainers.run(2 * WANTED_SECONDS)
    assert len(trainers.asked) <= 1 + (10 + WANTED_SECONDS) / POLL_SECONDS
    assert not trainers.polls._polled


def test_a_request_that_raises_does_not_end_the_thread():
    def broken(url, seconds):
        raise ZeroDivisionError

    polls = SharedPolls(broken, lambda: 0.0, lambda key: None)
    polls.progress(stage(), "http://a")
    polls.process(polls.queue.take()[0])
    assert polls.queue.working() == 0


def test_an_object_that_waits_for_its_pods_is_woken_once_without_a_request():
    trainers = Trainers()
    trainers.polls.wake(stage(), 5.0)
    trainers.polls.wake(stage(), 5.0)
    assert trainers.polls.is_waiting(stage())
    trainers.run(4)
    assert trainers.woken == []
    trainers.run(100)
    assert trainers.woken == [stage()] and trainers.asked == [] and not trainers.polls.is_waiting(stage())


def test_waiting_objects_share_the_rate_with_trainers():
    trainers = Trainers()
    for number in range(1000):
        trainers.polls.wake(stage(f"s{number}"), 0.0)
    trainers.run(10)
    assert len(trainers.woken) <= 11 * POLL_RATE


def test_without_shared_polls_the_trainer_is_asked_in_the_pass():
    assert DirectPolls(lambda url, seconds: GOOD).progress(stage(), "http://a").step == 7


def test_a_list_that_is_older_than_what_passes_have_seen_stops_and_replaces_nothing():
    trainers = Trainers()
    listed = ListedPolls(trainers.polls)
    trainers.polls.progress(stage(), "http://a2")
    assert listed.progress(stage(), "http://a1") is None
    listed.wake(stage(), 0.0)
    listed.stop(stage())
    trainers.send()
    assert [each for _, each in trainers.asked] == ["http://a2"] and trainers.polls.progress(stage(), "http://a2")


def test_what_a_list_contains_is_polled_and_stays_wanted():
    trainers = Trainers()
    listed = ListedPolls(trainers.polls)
    listed.wake(stage("b"), 0.0)
    for _ in range(10):
        listed.progress(stage(), "http://a")
        trainers.run(WANTED_SECONDS - 1)
    assert trainers.count(stage("b")) == 0 and trainers.woken.count(stage("b")) == 1
    assert len(trainers.asked) == pytest.approx(10 * WANTED_SECONDS / POLL_SECONDS, rel=0.1)
