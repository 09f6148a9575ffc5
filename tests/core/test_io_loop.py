"""The I/O loop: what waits for a network is served while its caller computes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Iterator

import pytest
from support.loopback import HITS, Provider, responds

from gog import metrics
from gog.io_loop import IOLoop
from gog.spec import ToolsSpec
from gog.tool_client import Toolbox
from gog.tool_types import Reply

PATIENCE = 30
"""Seconds after which something that never happens fails a test."""


@pytest.fixture
def io() -> Iterator[IOLoop]:
    loop = IOLoop()
    yield loop
    loop.close()


def test_a_coroutine_finishes_while_its_callers_thread_is_blocked(io: IOLoop) -> None:
    finished = threading.Event()

    async def work() -> str:
        await asyncio.sleep(0)
        finished.set()
        return "done"

    async def scenario() -> str:
        running = asyncio.ensure_future(io.run(work()))
        await asyncio.sleep(0)  # submitted, and no more
        assert finished.wait(PATIENCE)  # blocks this loop, as a step of a model does
        return await running

    assert asyncio.run(scenario()) == "done"


def test_an_exception_is_raised_where_the_coroutine_is_awaited(io: IOLoop) -> None:
    async def fail() -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        asyncio.run(io.run(fail()))


def test_cancelling_the_caller_cancels_the_coroutine(io: IOLoop) -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def hang() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def scenario() -> None:
        running = asyncio.ensure_future(io.run(hang()))
        assert await asyncio.to_thread(started.wait, PATIENCE)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(scenario())
    assert cancelled.wait(PATIENCE)


def test_closing_cancels_what_still_runs_and_ends_the_thread() -> None:
    io, started, cancelled = IOLoop("gog-io-test"), threading.Event(), threading.Event()

    async def hang() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def scenario() -> None:
        running = asyncio.ensure_future(io.run(hang()))
        assert await asyncio.to_thread(started.wait, PATIENCE)
        io.close()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(scenario())
    assert cancelled.is_set()
    assert "gog-io-test" not in {thread.name for thread in threading.enumerate()}


def test_a_coroutine_sees_its_callers_context(io: IOLoop) -> None:
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place")

    async def look() -> str:
        return place.get()

    async def scenario() -> str:
        place.set("an episode")
        return await io.run(look())

    assert asyncio.run(scenario()) == "an episode"


def test_objects_that_exist_already_are_exempt_from_collection_while_a_loop_runs() -> None:
    io = IOLoop()
    assert gc.get_freeze_count() > 0
    io.close()
    assert gc.get_freeze_count() == 0


class Server(threading.Thread):
    """The tools on loopback, served by a thread of their own until `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ready, self._stop_it = threading.Event(), threading.Event()

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        async with Provider({"textSearch": [responds(HITS)]}) as provider:
            self.url = provider.url
            self.ready.set()
            await asyncio.to_thread(self._stop_it.wait)

    def stop(self) -> None:
        self._stop_it.set()
        self.join()


@pytest.fixture
def server() -> Iterator[Server]:
    thread = Server()
    thread.start()
    assert thread.ready.wait(PATIENCE)
    yield thread
    thread.stop()


def test_a_call_is_answered_read_and_timed_while_its_caller_computes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[str] = []
    ended = threading.Event()

    def note(tool: str, backend: str, outcome: str) -> None:
        outcomes.append(outcome)
        ended.set()

    monkeypatch.setattr(metrics, "record_tool_attempt", note)

    async def scenario() -> Reply:
        async with Toolbox({"textSearch": server.url}, ToolsSpec(deadline_seconds=PATIENCE)) as tools:
            call = asyncio.ensure_future(tools.search_text("ring"))
            await asyncio.sleep(0)
            assert ended.wait(PATIENCE)  # this loop is blocked all the while
            assert outcomes == ["ok"]
            return await call

    assert len(asyncio.run(scenario()).unwrap()) == 5
