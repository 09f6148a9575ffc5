"""The work queue under a fake clock: no duplicates, one worker per key, no key before it is due."""

from __future__ import annotations

import threading

import pytest

from gog_operator.workqueue import BURST, LONGEST_WAIT, Key, WorkQueue

A, B = Key("GoGRun", "ns", "a"), Key("SFTStage", "ns", "b")


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def queue(time):
    return WorkQueue(time, lambda: 0.5)


def test_a_key_added_several_times_is_taken_once(queue):
    for _ in range(3):
        queue.add(A)
    assert queue.take()[0] == A
    assert queue.take()[0] is None


def test_a_key_whose_pass_is_in_progress_is_not_given_to_a_second_worker(queue):
    queue.add(A)
    assert queue.take()[0] == A
    queue.add(A)
    queue.add(B)
    assert queue.take()[0] == B
    assert queue.take()[0] is None


def test_a_key_added_during_its_pass_gets_another_pass(queue):
    queue.add(A)
    queue.take()
    queue.add(A)
    queue.done(A)
    assert queue.take()[0] == A


def test_a_key_that_is_added_during_its_pass_and_again_after_it_gets_one_more_pass(queue):
    queue.add(A)
    queue.take()
    queue.add(A)
    queue.done(A, again=0)
    assert queue.take()[0] == A
    assert queue.take()[0] is None


def test_a_time_that_an_earlier_one_replaced_may_be_requested_again(queue, time):
    queue.add(A, 60)
    queue.add(A, 5)
    time.now = 5
    assert queue.take()[0] == A
    queue.done(A, again=55)
    time.now = 60
    assert queue.take()[0] == A
    queue.done(A)
    assert queue.take()[0] is None


def test_the_earliest_requested_time_applies(queue, time):
    queue.add(A, 60)
    queue.add(A, 5)
    queue.add(A, 30)
    assert queue.take() == (None, 5)
    time.now = 5
    assert queue.take()[0] == A
    queue.done(A)
    time.now = 100
    assert queue.take()[0] is None


def test_a_requeued_key_is_taken_when_it_is_due(queue, time):
    queue.add(A)
    queue.take()
    queue.done(A, 7)
    assert queue.take() == (None, 7)
    time.now = 7
    assert queue.take()[0] == A


def test_waits_after_failures_double_up_to_a_limit(queue, time):
    waits = []
    for _ in range(12):
        queue.add(A)
        assert queue.take()[0] == A
        waits.append(queue.failed(A))
        time.now += waits[-1]
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == LONGEST_WAIT


def test_success_resets_the_wait(queue, time):
    queue.add(A)
    for _ in range(5):
        queue.take()
        time.now += queue.failed(A)
    queue.take()
    queue.done(A)
    queue.add(A)
    queue.take()
    assert queue.failed(A) == 1


def test_a_wait_requested_by_the_server_is_the_minimum(queue):
    queue.add(A)
    queue.take()
    assert queue.failed(A, after=30) == 30


def test_waits_after_failures_have_jitter(time):
    waits = set()
    for luck in (0.0, 0.5, 0.99):
        queue = WorkQueue(time, lambda luck=luck: luck)
        queue.add(A)
        queue.take()
        waits.add(queue.failed(A))
    assert len(waits) == 3 and min(waits) == 0.5


def test_a_new_event_does_not_wait_for_the_backoff(queue):
    queue.add(A)
    queue.take()
    queue.failed(A, after=300)
    queue.add(A)
    assert queue.take()[0] == A


def test_depth_and_age_count_only_keys_that_are_due(queue, time):
    queue.add(A)
    queue.add(B, 100)
    time.now = 9
    assert (queue.depth(), queue.oldest()) == (1, 9)
    queue.take()
    time.now = 20
    assert (queue.depth(), queue.oldest(), queue.longest_pass()) == (0, 0, 11)


def test_closing_releases_every_worker(queue):
    workers = [threading.Thread(target=queue.wait) for _ in range(3)]
    for each in workers:
        each.start()
    queue.close()
    for each in workers:
        each.join(10)
    assert not any(each.is_alive() for each in workers)


def keys_of(namespace, count):
    return [Key("SFTStage", namespace, f"{number}") for number in range(count)]


def test_a_namespace_with_many_keys_does_not_delay_another_one_s(queue):
    for key in (*keys_of("many", 100), A):
        queue.add(key)
    assert A in (queue.take()[0], queue.take()[0])


def test_the_namespace_with_the_fewest_passes_in_progress_is_next(queue):
    for key in (*keys_of("hung", 5), *keys_of("quick", 3)):
        queue.add(key)
    taken = []
    for _ in range(6):
        key = queue.take()[0]
        taken.append(key.namespace)
        if key.namespace == "quick":
            queue.done(key)
    assert taken == ["hung", "quick", "quick", "quick", "hung", "hung"]


def test_one_namespace_never_occupies_all_workers(time):
    queue = WorkQueue(time, lambda: 0.5, workers=3)
    for key in keys_of("slow", 5):
        queue.add(key)
    first, second = queue.take()[0], queue.take()[0]
    assert queue.take()[0] is None
    queue.add(A)
    assert queue.take()[0] == A
    queue.done(first)
    assert queue.take()[0].namespace == second.namespace == "slow"


def test_a_single_worker_serves_every_namespace(time):
    queue = WorkQueue(time, lambda: 0.5, workers=1)
    queue.add(A)
    assert queue.take()[0] == A


def test_a_key_that_changes_all_the_time_gets_one_pass_a_second_after_a_burst(queue, time):
    passes = 0
    for _ in range(6000):
        queue.add(A)
        if queue.take()[0] is not None:
            passes += 1
            queue.done(A)
        time.now += 0.01
    assert passes == BURST + 59


def test_events_of_a_key_at_its_limit_occupy_no_memory(queue):
    for _ in range(1000):
        queue.add(A)
        if queue.take()[0] is not None:
            queue.done(A)
    assert len(queue._later) == 1


def test_the_pace_of_keys_that_are_gone_is_forgotten(time):
    queue = WorkQueue(time, lambda: 0.5)
    for number in range(5000):
        queue.add(Key("SFTStage", "ns", f"{number}"))
        queue.done(queue.take()[0])
        time.now += 1
    assert len(queue._pace._expected) <= 1024


def test_all_keys_together_are_limited_to_a_rate(time):
    queue, taken = WorkQueue(time, lambda: 0.5, rate=10), 0
    for key in keys_of("a", 1000):
        queue.add(key)
    for _ in range(100):
        while (found := queue.take())[0] is not None:
            queue.done(found[0])
            taken += 1
        assert 0 < found[1] < 0.11, "and it is known when the next one may start"
        time.now += 0.1
    assert 100 <= taken <= 110
