"""The cache of answers: what it keeps, what is called again, and replay without a vendor."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from support.builders import SERVER_ERROR, FakeBackend, make_path, request, run

from gog.calls.recording import Recording
from gog.errors import UserError
from gog.spec import CacheSpec
from gog.tool_cache import Cache
from gog.tool_types import FailureKind, Reply

MODES = ("off", "live", "record", "replay-or-live", "replay-strict")


def make_cache(folder: Path, mode: str, **fields: int) -> Cache:
    return Cache(CacheSpec(mode=mode, path=str(folder / "answers.sqlite"), **fields))


def request_all(cache: Cache, backend: FakeBackend, *queries: str) -> list[Reply[str]]:
    """Calls one after the other through one path."""

    async def scenario() -> list[Reply[str]]:
        path = make_path(backend, cache=cache, attempts=1)
        return [await request(path, query) for query in queries]

    return run(scenario())


def test_an_identical_rerun_makes_no_requests(tmp_path: Path) -> None:
    queries = [f"query {number}" for number in range(20)]
    first = request_all(make_cache(tmp_path, "record"), FakeBackend(), *queries)
    untouched = FakeBackend()
    for mode in ("replay-or-live", "replay-strict"):
        again = request_all(make_cache(tmp_path, mode), untouched, *queries)
        assert [reply.value for reply in again] == [reply.value for reply in first]
        assert all(reply.cached and reply.attempts == 0 for reply in again)
    assert untouched.requests == []


def test_replay_strict_fails_on_a_miss_and_sends_no_request(tmp_path: Path) -> None:
    request_all(make_cache(tmp_path, "record"), FakeBackend(), "known")
    backend = FakeBackend()
    known, unknown = request_all(make_cache(tmp_path, "replay-strict"), backend, "known", "unknown")
    assert known.value == "answer"
    assert unknown.failure is not None and unknown.failure.kind is FailureKind.CACHE_MISS
    assert backend.requests == []


def test_replay_or_live_calls_for_what_is_missing_and_records_it(tmp_path: Path) -> None:
    request_all(make_cache(tmp_path, "replay-or-live"), FakeBackend(), "new")
    (reply,) = request_all(make_cache(tmp_path, "replay-strict"), FakeBackend(), "new")
    assert reply.value == "answer"


def test_record_calls_again_in_a_new_run_and_keeps_the_newer_answer(tmp_path: Path) -> None:
    request_all(make_cache(tmp_path, "record"), FakeBackend([b"old"]), "known")
    (newer,) = request_all(make_cache(tmp_path, "record"), FakeBackend([b"new"]), "known")
    (replayed,) = request_all(make_cache(tmp_path, "replay-strict"), FakeBackend(), "known")
    assert (newer.value, newer.cached, replayed.value) == ("new", False, "new")


@pytest.mark.parametrize(("mode", "requests"), [("off", 3), ("live", 1)])
def test_off_keeps_nothing_and_live_keeps_answers_in_memory(tmp_path: Path, mode: str, requests: int) -> None:
    backend = FakeBackend()
    request_all(make_cache(tmp_path, mode), backend, "ring", "ring", "ring")
    assert len(backend.requests) == requests
    assert not (tmp_path / "answers.sqlite").exists()


def test_equal_calls_in_flight_are_one_request_even_without_a_cache() -> None:
    async def scenario() -> None:
        path = make_path(backend, cache=Cache(CacheSpec(mode="off")))
        await asyncio.gather(*(request(path) for _ in range(5)))

    backend = FakeBackend(seconds=1)
    run(scenario())
    assert len(backend.requests) == 1


@pytest.mark.parametrize("mode", ["live", "record", "replay-or-live"])
def test_failures_are_never_cached(tmp_path: Path, mode: str) -> None:
    backend = FakeBackend([SERVER_ERROR, SERVER_ERROR, b"answer"])
    replies = request_all(make_cache(tmp_path, mode), backend, "ring", "ring", "ring")
    assert [reply.failure is None for reply in replies] == [False, False, True]
    if mode != "live":
        assert [each.answer for each in Recording(tmp_path / "answers.sqlite").entries()] == [b"answer"]


def test_an_answer_recorded_in_an_earlier_form_is_called_again(tmp_path: Path) -> None:
    request_all(make_cache(tmp_path, "record"), FakeBackend(), "ring")
    with sqlite3.connect(tmp_path / "answers.sqlite") as file:
        file.execute("UPDATE answers SET answer = ?", (b"\xff\xfe",))
    (reply,) = request_all(make_cache(tmp_path, "replay-or-live"), FakeBackend(), "ring")
    assert (reply.value, reply.cached) == ("answer", False)
    with sqlite3.connect(tmp_path / "answers.sqlite") as file:
        file.execute("UPDATE answers SET answer = ?", (b"\xff\xfe",))
    (strict,) = request_all(make_cache(tmp_path, "replay-strict"), FakeBackend(), "ring")
    assert strict.failure is not None and strict.failure.kind is FailureKind.CACHE_MISS


def test_an_empty_answer_is_called_again_after_a_while_and_a_strict_replay_uses_it_for_ever(tmp_path: Path) -> None:
    async def scenario(cache: Cache, backend: FakeBackend) -> bool:
        path = make_path(backend, cache=cache)
        reply = await path.call({"query": "nothing"}, lambda: b"", lambda answer: answer.split())
        assert reply.value == []
        return reply.cached

    def search(mode: str, now: float) -> bool:
        spec = CacheSpec(mode=mode, path=str(tmp_path / "answers.sqlite"), empty_seconds=60)
        return run(scenario(Cache(spec, lambda: now), FakeBackend([b" "])))

    assert [search("replay-or-live", now) for now in (0.0, 59.0, 61.0)] == [False, True, False]
    assert search("replay-strict", 1e9)


def test_an_empty_answer_in_memory_expires_too() -> None:
    now = [0.0]
    cache = Cache(CacheSpec(empty_seconds=60), lambda: now[0])
    cache.put("a", b"[]", is_empty=True)
    cache.put("b", b"[1]")
    now[0] = 61.0
    assert (cache.get("a"), cache.get("b")) == (None, b"[1]")


def test_a_strict_replay_requires_a_recording(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recording"):
        make_cache(tmp_path, "replay-strict")
    assert list(tmp_path.iterdir()) == []


def test_memory_keeps_the_most_recently_used_answers() -> None:
    cache = Cache(CacheSpec(max_entries=2))
    cache.put("a", b"1")
    cache.put("b", b"2")
    assert cache.get("a") == b"1"
    cache.put("c", b"3")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"1", None, b"3")


def test_an_answer_dropped_from_memory_is_still_in_the_file(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, "replay-or-live", max_entries=1)
    cache.put("a", b"1")
    cache.put("b", b"2")
    assert (cache.get("a"), cache.get("b")) == (b"1", b"2")


def test_two_runs_may_share_a_file(tmp_path: Path) -> None:
    one, other = make_cache(tmp_path, "replay-or-live"), make_cache(tmp_path, "replay-or-live")
    one.put("a", b"1")
    other.put("b", b"2")
    assert (one.get("b"), other.get("a")) == (b"2", b"1")


def test_a_file_that_is_not_a_cache_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "answers.sqlite").write_text("dear diary, " * 100)
    with pytest.raises(UserError) as caught:
        make_cache(tmp_path, "record")
    assert caught.value.where == str(tmp_path / "answers.sqlite")
    assert caught.value.what == "cannot open the tool cache: file is not a database"


def test_an_answer_that_cannot_be_recorded_stops_the_run_with_a_remedy(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, "record")
    with sqlite3.connect(tmp_path / "answers.sqlite") as file:
        file.execute("DROP TABLE answers")
    with pytest.raises(
        UserError,
        match=r"cannot record an answer: no such table: answers \(name another file, or import the recording again, ",
    ):
        cache.put("a", b"1")


@pytest.mark.parametrize("mode", ["record", "replay-or-live", "replay-strict"])
def test_a_mode_that_needs_a_file_is_refused_without_one(mode: str) -> None:
    with pytest.raises(ValueError, match=f"mode {mode} needs a path"):
        CacheSpec(mode=mode)
