"""The work queue under a fake clock: no duplicates, one worker per key, no key before it is due."""

from __future__ import annotations

import threading

import pytest

from gog_operator.workqueue import LONGEST_WAIT, Key, WorkQueue

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
