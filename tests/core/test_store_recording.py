"""A recording below a prefix of a store: the modes of the cache, damage, outages, and two processes at once.

Each claim about the cache is checked over a folder of objects and over a bucket of a real S3 server.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from support import ports, s3
from support.builders import SERVER_ERROR, FakeBackend, make_path, request

from gog import tool_cache
from gog.calls import recording_file, recordings, store_recording
from gog.calls.recording import Entry, Recording
from gog.calls.store_recording import StoreRecording
from gog.errors import Unwritable, UserError
from gog.spec import CacheSpec, StageConfig, StoreSpec
from gog.store import Patience, Unavailable
from gog.store.files import FileBackend
from gog.tool_cache import Cache
from gog.tool_client import Toolbox
from gog.tool_types import FailureKind, Reply

ENTRIES = [Entry("b", "textSearch", 1.5, None, b"two"), Entry("a", "judge", 2.0, 9.0, b"\xff\x00\nnot text")]


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSpec:
    """A prefix of a store that holds nothing yet."""
    if request.param == "folder":
        return StoreSpec(uri=f"file://{tmp_path}/answers")
    gateway: s3.Gateway = request.getfixturevalue("gateway")
    return gateway.spec(f"{tmp_path.parent.name}/{tmp_path.name}/answers")


def open_at(place: StoreSpec, *, must_exist: bool = False) -> StoreRecording:
    return StoreRecording(place, must_exist=must_exist, patience=s3.IMPATIENT)


def make_cache(place: StoreSpec, mode: str, now: Callable[[], float] = lambda: 0.0, **fields: float) -> Cache:
    """The cache of a stage whose run has another store, with the same options."""
    run_store = place.model_copy(update={"uri": place.uri.replace("/answers", "/run")})
    return Cache(CacheSpec(mode=mode, path=place.uri, **fields), now, store=run_store, patience=s3.IMPATIENT)


def request_all(cache: Cache, backend: FakeBackend, *queries: str) -> list[Reply[str]]:
    async def scenario() -> list[Reply[str]]:
        path = make_path(backend, cache=cache, attempts=1)
        try:
            return [await request(path, query) for query in queries]
        finally:
            await cache.close()

    return asyncio.run(scenario())


# ---- the modes of the cache


def test_an_identical_rerun_from_a_store_makes_no_requests(place: StoreSpec) -> None:
    queries = [f"query {number}" for number in range(5)]
    first = request_all(make_cache(place, "record"), FakeBackend(), *queries)
    untouched = FakeBackend()
    for mode in ("replay-or-live", "replay-strict"):
        again = request_all(make_cache(place, mode), untouched, *queries)
        assert [(reply.value, reply.cached) for reply in again] == [(reply.value, True) for reply in first]
    assert untouched.requests == []


def test_each_mode_reads_and_writes_what_it_does_with_a_file(place: StoreSpec) -> None:
    request_all(make_cache(place, "live"), FakeBackend([b"0"]), "known")
    request_all(make_cache(place, "record"), FakeBackend([b"1"]), "known")
    (recorded_again,) = request_all(make_cache(place, "record"), FakeBackend([b"2"]), "known")
    known, missing = request_all(make_cache(place, "replay-strict"), FakeBackend([b"3"]), "known", "new")
    called, known_too = request_all(make_cache(place, "replay-or-live"), FakeBackend([b"4"]), "new", "known")
    (kept,) = request_all(make_cache(place, "replay-strict"), FakeBackend([b"5"]), "new")
    assert (recorded_again.value, known.value, known_too.value) == ("2", "2", "2")
    assert missing.failure is not None and missing.failure.kind is FailureKind.CACHE_MISS
    assert (called.value, called.cached, kept.value) == ("4", False, "4")


def test_failures_are_never_recorded_in_a_store(place: StoreSpec) -> None:
    backend = FakeBackend([SERVER_ERROR, b"answer"])
    request_all(make_cache(place, "record"), backend, "ring", "ring")
    assert [each.answer for each in open_at(place).entries()] == [b"answer"]


def test_an_empty_answer_in_a_store_expires_except_for_a_strict_replay(place: StoreSpec) -> None:
    async def put(cache: Cache) -> None:
        await cache.put("key", b"[]", is_empty=True)
        await cache.close()

    asyncio.run(put(make_cache(place, "record", lambda: 100.0, empty_seconds=60)))
    found = {}
    for mode, now in (("replay-or-live", 159.0), ("replay-or-live", 161.0), ("replay-strict", 1e9)):
        found[mode, now] = asyncio.run(make_cache(place, mode, lambda now=now: now).get("key"))
    assert list(found.values()) == [b"[]", None, b"[]"]


def test_a_strict_replay_of_a_prefix_without_answers_is_refused_and_writes_nothing(
    place: StoreSpec, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"^{place.uri}: no such recording"):
        make_cache(place, "replay-strict")
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_left_the_memory_is_read_from_the_store_again(place: StoreSpec) -> None:
    async def scenario() -> list[bytes | None]:
        cache = make_cache(place, "replay-or-live", max_entries=1)
        await cache.put("a", b"1")
        await cache.put("b", b"2")
        return [await cache.get("a"), await cache.get("b")]

    assert asyncio.run(scenario()) == [b"1", b"2"]


def test_two_processes_that_record_one_call_at_once_leave_one_whole_answer(place: StoreSpec) -> None:
    answers = [bytes([number]) * 50_000 for number in range(8)]
    writers = [open_at(place) for _ in answers]
    threads = [
        threading.Thread(target=each.put, args=(Entry("a", "judge", 0.0, None, answer),))
        for each, answer in zip(writers, answers, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (kept,) = open_at(place).entries()
    assert kept.answer in answers


# ---- damage


def object_of(place: StoreSpec, key: str) -> tuple[FileBackend, str]:
    """The object of a call, in a folder."""
    return FileBackend(Path(place.uri.removeprefix("file://"))), store_recording.key_of(key)


def swapped(data: bytes) -> bytes:
    return store_recording.encode(Entry("other", "judge", 0.0, None, b"another answer"))


def of_another_content(data: bytes) -> bytes:
    return zstandard.compress(zstandard.decompress(data).replace(b"two", b"six"))


def of_another_time(data: bytes) -> bytes:
    return zstandard.compress(zstandard.decompress(data).replace(b'"expires": null', b'"expires": 1e99'))


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda data: data[: len(data) // 2], "does not decompress"),
        (lambda data: b"", "does not"),
        (lambda data: b"garbage", "does not"),
        (lambda data: zstandard.compress(b"two"), "does not agree with its hash"),
        (lambda data: zstandard.compress(bytes(100_000_000)), "longer than an answer may be"),
        (of_another_content, "does not agree with its hash"),
        (of_another_time, "does not agree with its hash"),
        (swapped, "the answer of another call"),
    ],
)
def test_a_damaged_object_is_a_miss_with_a_line_in_the_log_and_is_recorded_anew(
    damage: Callable[[bytes], bytes], cause: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = StoreSpec(uri=f"file://{tmp_path}/answers")
    open_at(place).put(ENTRIES[0])
    backend, key = object_of(place, "b")
    found = backend.read(key)
    assert found is not None
    backend.put(key, damage(found.data), "")
    recording = open_at(place)
    with caplog.at_level(logging.WARNING):
        assert recording.get("b") is None
    assert cause in caplog.text and key in caplog.text
    assert list(recording.entries()) == []
    recording.put(ENTRIES[0])
    assert recording.get("b") == ENTRIES[0]


@pytest.mark.parametrize("content", [b"{}", b"[]", b"[" * 5_000, b'{"format": "gog-answer/2"}', b"\xff"])
def test_an_object_of_another_form_is_a_miss_although_its_hash_agrees(content: bytes) -> None:
    data = zstandard.compress(store_recording.blake3(content).hexdigest().encode() + b"\n" + content)
    with pytest.raises(ValueError, match=r"^(its |Expecting|'utf-8')"):
        store_recording.decode(data)


# ---- outages


def test_a_store_that_does_not_answer_is_an_outage_and_no_miss(gateway: s3.Gateway, tmp_path: Path) -> None:
    place = gateway.spec(f"{tmp_path.parent.name}/{tmp_path.name}/answers")
    recording = open_at(place)
    closed = place.model_copy(update={"endpoint_url": f"http://127.0.0.1:{ports.free(1)[0]}"})
    recording._store = store_recording.open_reader(closed, Patience(budget=0.0))
    for act in (lambda: recording.get("a"), lambda: recording.put(ENTRIES[0]), lambda: list(recording.entries())):
        with pytest.raises(Unavailable, match=r"^s3://ckpt.* not served within"):
            act()
    with pytest.raises(Unavailable):
        StoreRecording(closed, patience=Patience(budget=0.0))


def test_a_call_whose_answer_cannot_be_recorded_fails_the_stage(
    gateway: s3.Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = gateway.spec(f"{tmp_path.parent.name}/{tmp_path.name}/answers")
    cache = make_cache(place, "record")

    def put(*_: object) -> None:
        raise Unavailable("s3://ckpt: not served within 120 s")

    monkeypatch.setattr("gog.store.s3.S3Backend.put", put)
    with pytest.raises(Unavailable):
        request_all(cache, FakeBackend(), "ring")


def test_a_disk_that_fails_is_an_outage_and_no_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = open_at(StoreSpec(uri=f"file://{tmp_path}/answers"))

    def read(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(FileBackend, "read", read)
    with pytest.raises(Unwritable, match="cannot read the recorded answers: Input/output error") as caught:
        recording.get("a")
    assert caught.value.may_pass


def test_the_event_loop_runs_while_a_store_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(StoreRecording, "get", lambda *_: [release.wait(30)].clear())
    cache = make_cache(StoreSpec(uri=f"file://{tmp_path}/answers"), "replay-or-live")

    async def scenario() -> int:
        reads = [asyncio.ensure_future(cache.get(str(number))) for number in range(50)]
        ticks = 0
        for _ in range(20):
            await asyncio.sleep(0.001)
            ticks += 1
        assert not any(each.done() for each in reads)
        release.set()
        assert await asyncio.gather(*reads) == [None] * 50
        await cache.close()
        return ticks

    assert asyncio.run(scenario()) == 20


def test_requests_to_a_store_are_made_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(tool_cache.REQUESTS, timeout=30)
    monkeypatch.setattr(StoreRecording, "get", lambda *_: [together.wait()].clear())
    cache = make_cache(StoreSpec(uri=f"file://{tmp_path}/answers"), "replay-or-live")

    async def scenario() -> list[bytes | None]:
        return await asyncio.gather(*(cache.get(str(number)) for number in range(tool_cache.REQUESTS)))

    assert asyncio.run(scenario()) == [None] * tool_cache.REQUESTS


def test_what_was_put_is_in_the_store_when_the_cache_is_closed_although_its_caller_is_gone(place: StoreSpec) -> None:
    async def scenario() -> None:
        cache = make_cache(place, "record")
        caller = asyncio.ensure_future(cache.put("a", b"1"))
        await asyncio.sleep(0)
        caller.cancel()
        await cache.close()

    asyncio.run(scenario())
    assert [each.answer for each in open_at(place).entries()] == [b"1"]


def test_an_answer_that_is_lost_after_its_call_is_over_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    def put(*_: object) -> None:
        release.wait(30)
        raise Unavailable("s3://b/answers: not served within 120 s")

    monkeypatch.setattr(StoreRecording, "put", put)

    async def scenario() -> None:
        cache = make_cache(StoreSpec(uri=f"file://{tmp_path}/answers"), "record")
        caller = asyncio.ensure_future(cache.put("a", b"1"))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.sleep(0)
        release.set()
        await cache.close()

    asyncio.run(scenario())
    assert "an answer is not recorded, and its call is over: s3://b/answers: not served" in caplog.text


# ---- copies, and what a path may name


def test_a_recording_in_a_store_is_handed_on_like_one_in_a_file(place: StoreSpec, tmp_path: Path) -> None:
    there = Recording(tmp_path / "there.sqlite")
    there.put_all(ENTRIES)
    written = recording_file.write(there, tmp_path / "file")
    assert recording_file.read(tmp_path / "file", lambda: open_at(place)) == written
    assert list(open_at(place, must_exist=True).entries()) == sorted(ENTRIES, key=lambda each: each.key)
    assert recording_file.write(open_at(place, must_exist=True), tmp_path / "again") == written


def test_objects_are_compressed_and_named_by_the_hash_of_their_key(tmp_path: Path) -> None:
    place = StoreSpec(uri=f"file://{tmp_path}/answers")
    open_at(place).put(Entry("../../a key", "judge", 0.0, None, b"the ring " * 1000))
    (path,) = (tmp_path / "answers" / "answers").iterdir()
    assert path.name == f"{store_recording.blake3(b'../../a key').hexdigest()}.zst" and path.stat().st_size < 500


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("gs://b/answers", "is no address of recorded answers"),
        ("http://b/answers", "is no address of recorded answers"),
        ("s3://", "names no bucket or folder"),
        ("s3:///answers", "names no bucket or folder"),
        ("file://", "names no bucket or folder"),
        ("answers/", "names a folder, not a file"),
        (".", "is a folder"),
    ],
)
def test_a_path_that_names_no_recording_is_refused_by_field_and_makes_nothing(
    path: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        Cache(CacheSpec(mode="record", path=path))
    assert (caught.value.what, caught.value.where) == (what, f"tools.cache.path: {path}")
    assert "s3://bucket/prefix" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_takes_the_options_of_the_runs_store_only_if_that_is_a_bucket_too(gateway: s3.Gateway) -> None:
    run = gateway.spec("run", region="us-east-1")
    assert recordings._options("s3://other/p", run) == run.model_copy(update={"uri": "s3://other/p"})
    assert recordings._options("s3://other/p", StoreSpec(uri="file:///run")) == StoreSpec(uri="s3://other/p")


def test_a_stage_records_with_the_options_of_its_runs_store(gateway: s3.Gateway, tmp_path: Path) -> None:
    place = gateway.spec(f"{tmp_path.parent.name}/{tmp_path.name}/answers")
    tools = {"cache": {"mode": "record", "path": place.uri}}
    body = {"model": {"base": "tiny"}, "data": {"world": {}}, "store": gateway.spec("run"), "tools": tools}

    async def scenario() -> None:
        async with Toolbox.of_stage(StageConfig.model_validate(body)) as toolbox:
            await toolbox.io.run(toolbox._cache.put("a", b"1"))

    asyncio.run(scenario())
    assert [each.answer for each in open_at(place).entries()] == [b"1"]


def test_a_prefix_that_may_only_be_read_is_replayed(
    gateway: s3.Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = gateway.spec(f"{tmp_path.parent.name}/{tmp_path.name}/answers")
    open_at(place).put(ENTRIES[0])

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a strict replay writes")

    monkeypatch.setattr("gog.store.s3.S3Backend._put", refused)
    assert asyncio.run(make_cache(place, "replay-strict").get("b")) == b"two"
