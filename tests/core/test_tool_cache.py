"""The cache of answers: what it keeps, what is called again, and replay without a vendor."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from support.builders import SERVER_ERROR, FakeBackend, make_path, request, run

from gog import tool_cache
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
    run(cache.put("a", b"[]", is_empty=True))
    run(cache.put("b", b"[1]"))
    now[0] = 61.0
    assert (run(cache.get("a")), run(cache.get("b"))) == (None, b"[1]")


def test_a_strict_replay_requires_a_recording(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recording"):
        make_cache(tmp_path, "replay-strict")
    assert list(tmp_path.iterdir()) == []


def test_memory_keeps_the_most_recently_used_answers() -> None:
    cache = Cache(CacheSpec(max_entries=2))
    run(cache.put("a", b"1"))
    run(cache.put("b", b"2"))
    assert run(cache.get("a")) == b"1"
    run(cache.put("c", b"3"))
    assert (run(cache.get("a")), run(cache.get("b")), run(cache.get("c"))) == (b"1", None, b"3")


def test_an_answer_dropped_from_memory_is_still_in_the_file(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, "replay-or-live", max_entries=1)
    run(cache.put("a", b"1"))
    run(cache.put("b", b"2"))
    assert (run(cache.get("a")), run(cache.get("b"))) == (b"1", b"2")


def test_memory_keeps_as_many_bytes_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_cache, "MAX_KEPT_BYTES", 10)
    cache = Cache(CacheSpec())
    for key, answer in (("a", b"1" * 6), ("b", b"2" * 4), ("b", b"3" * 3), ("c", b"4")):
        run(cache.put(key, answer))
    assert run(cache.get("a")) == b"1" * 6
    run(cache.put("d", b"5"))
    assert [run(cache.get(key)) is None for key in "abcd"] == [False, True, False, False]


def test_the_processes_of_a_machine_share_the_memory_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_cache, "MAX_KEPT_BYTES", 80)
    for ranks, kept in (("1", 8), ("8", 1)):
        cache = Cache(CacheSpec(), environment={"LOCAL_WORLD_SIZE": ranks})
        for key in "abcdefgh":
            run(cache.put(key, b"0123456789"))
        assert sum(run(cache.get(key)) is not None for key in "abcdefgh") == kept


def test_the_event_loop_goes_on_while_another_process_locks_the_file(tmp_path: Path) -> None:
    async def scenario() -> bytes | None:
        cache = make_cache(tmp_path, "replay-or-live")
        other = sqlite3.connect(tmp_path / "answers.sqlite")
        other.execute("BEGIN IMMEDIATE")
        recorded = [asyncio.ensure_future(cache.put(str(number), b"answer")) for number in range(100)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(each.done() for each in recorded), "an answer is used when it is in the file"
        other.rollback()
        await asyncio.gather(*recorded)
        await cache.close()
        return await make_cache(tmp_path, "replay-strict").get("99")

    assert asyncio.run(scenario()) == b"answer"


def test_what_was_put_is_in_the_file_when_the_cache_is_closed_although_its_caller_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        cache = make_cache(tmp_path, "record")
        caller = asyncio.ensure_future(cache.put("a", b"1"))
        await asyncio.sleep(0)
        caller.cancel()
        await cache.close()

    asyncio.run(scenario())
    assert run(make_cache(tmp_path, "replay-strict").get("a")) == b"1"


def test_equal_calls_of_which_one_ends_while_the_file_is_read_are_one_request(tmp_path: Path) -> None:
    async def scenario() -> list[Reply[str]]:
        path = make_path(backend, cache=make_cache(tmp_path, "replay-or-live"))
        callers = [asyncio.ensure_future(request(path)) for _ in range(3)]
        while not callers[0].done():
            await asyncio.sleep(0)
            callers.append(asyncio.ensure_future(request(path)))
        return await asyncio.gather(*callers)

    backend = FakeBackend()
    replies = asyncio.run(scenario())
    assert len(backend.requests) == 1 and [reply.cached for reply in replies].count(False) == 1


def test_two_runs_may_share_a_file(tmp_path: Path) -> None:
    one, other = make_cache(tmp_path, "replay-or-live"), make_cache(tmp_path, "replay-or-live")
    run(one.put("a", b"1"))
    run(other.put("b", b"2"))
    assert (run(one.get("b")), run(other.get("a"))) == (b"2", b"1")


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
        run(cache.put("a", b"1"))


@pytest.mark.parametrize("mode", ["record", "replay-or-live", "replay-strict"])
def test_a_mode_that_needs_a_file_is_refused_without_one(mode: str) -> None:
    with pytest.raises(ValueError, match=f"mode {mode} needs a path"):
        CacheSpec(mode=mode)
